/** Callers and network namespaces: known callers inside one, `<unresolved>` for callers from another. */
import { createInterface } from "node:readline";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import {
  curlPath,
  IdentityCases,
  identified,
  statuses,
  unidentified,
} from "../support/identity-cases.ts";
import { type Host, Network, networkObstacle, sayWhenSkipped } from "../support/network.ts";
import { mainFile } from "../support/program.ts";

const curl = curlPath();
const obstacle = curl === undefined ? "curl is not installed" : networkObstacle();
sayWhenSkipped("callers by executable across namespaces", obstacle);

const originCode = `require("node:http").createServer((_q, a) => a.end("here"))
  .listen(0, "127.0.0.1", function () { console.log(this.address().port); });`;

describe.skipIf(obstacle !== undefined)("with namespaces", () => {
  let cases: IdentityCases;
  let network: Network;
  let inside: Host;
  let outside: Host;
  let originPort = 0;
  let port = 0;
  const logs: Readonly<Record<string, unknown>>[] = [];

  beforeAll(async () => {
    cases = new IdentityCases(curl ?? "");
    network = new Network();
    inside = network.host("proxy", { ipv4: "198.51.100.2", ipv6: "2001:db8:51::2" });
    outside = network.host("agent", { ipv4: "198.51.101.2", ipv6: "2001:db8:52::2" });
    const origin = inside.start([process.execPath, "-e", originCode]);
    originPort = await new Promise((resolve, reject) => {
      origin.stdout?.once("data", (bytes) => resolve(Number(String(bytes))));
      origin.once("close", () => reject(new Error("the origin ended")));
    });
    const file = join(cases.folder, "proxy.yaml");
    writeFileSync(file, cases.config("0.0.0.0:0", originPort));
    const proxy = inside.start([process.execPath, mainFile, "--config", file]);
    if (proxy.stderr === null) throw new Error("no stderr");
    createInterface({ input: proxy.stderr }).on("line", (line) => {
      if (line.startsWith("{")) logs.push(JSON.parse(line) as Record<string, unknown>);
    });
    const serving = await eventually(
      () => logs.find(({ msg }) => msg === "serving") ?? false,
      25_000,
    );
    const { forward } = serving["addresses"] as { readonly forward: { readonly port: number } };
    port = forward.port;
  });
  afterAll(async () => {
    await network?.close();
    cases?.close();
  });

  const runOn = (host: Host) => async (command: readonly string[]) =>
    (await host.run(command)).stdout;

  test.each(["curl", "copy", "node"] as const)("%s beside the proxy is known", async (name) => {
    const url = `http://127.0.0.1:${port}`;
    expect(await statuses(cases.programs[name], url, originPort, runOn(inside))).toEqual(
      identified[name],
    );
  });

  test.each(["curl", "copy", "node"] as const)(
    "%s from another namespace is <unresolved>: entries without binaries admit it, all others and '**' refuse it",
    async (name) => {
      const url = `http://${inside.ipv4}:${port}`;
      expect(await statuses(cases.programs[name], url, originPort, runOn(outside))).toEqual(
        unidentified,
      );
    },
  );

  test("one warning says why, with what is known of the caller", () => {
    const warnings = logs.filter(({ msg }) => String(msg).includes("caller not identified"));
    expect(warnings).toEqual([
      expect.objectContaining({
        level: "warn",
        client: outside.ipv4,
        reason: "remote-peer",
        binary: "",
        binary_pid: 0,
        ancestors: [],
      }),
    ]);
    const refused = logs.find(({ outcome }) => outcome === "denied");
    expect(
      logs.some(({ reason }) => String(reason).startsWith("binary '<unresolved>' not allowed")),
    ).toBe(true);
    expect(refused).toBeDefined();
  });
});
