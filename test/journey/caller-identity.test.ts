/** Callers on loopback: rules with binaries tell real programs apart, rules without admit them all. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HttpOrigin, reply } from "../support/origin.ts";
import { curlPath, IdentityCases, identified, statuses } from "../support/identity-cases.ts";
import { ProxyProcess } from "../support/proxy.ts";

const curl = curlPath();
const obstacle =
  process.platform !== "linux"
    ? "callers are identified on Linux only"
    : curl === undefined
      ? "curl is not installed"
      : undefined;
if (obstacle !== undefined) process.stderr.write(`SKIPPED: callers by executable: ${obstacle}\n`);

describe.skipIf(obstacle !== undefined)("outside a namespace", () => {
  let cases: IdentityCases;
  let origin: HttpOrigin;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    cases = new IdentityCases(curl ?? "");
    origin = await HttpOrigin.launch(() => reply(200, "here"));
    proxy = await ProxyProcess.start(cases.config("127.0.0.1:0", origin.port));
  });
  afterAll(async () => {
    await proxy?.close();
    await origin?.close();
    cases?.close();
  });

  const run = async (command: readonly string[]): Promise<string> => {
    const [program = "", ...args] = command;
    return (await promisify(execFile)(program, args)).stdout;
  };

  test.each(["curl", "copy", "node"] as const)("%s is known by its executable", async (name) => {
    const url = `http://127.0.0.1:${proxy.forward.port}`;
    expect(await statuses(cases.programs[name], url, origin.port, run)).toEqual(identified[name]);
    expect(proxy.logs.filter(({ msg }) => msg.includes("not identified"))).toEqual([]);
  });

  test("a refusal names the executable and the entry", async () => {
    const denied = proxy.logs.find(({ outcome }) => outcome === "denied");
    expect(denied?.["reason"]).toMatch(/^binary '\/.*' not allowed in policy '(curl|copy|link)'/);
  });
});
