/** Merging into files that people wrote, compared with golden files. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { learn } from "../../../../src/cli/learn/learn.ts";
import { ObservedTraffic } from "../../../../src/cli/learn/observed-traffic.ts";

const golden = new URL("../../../golden/learn/", import.meta.url).pathname;
const mine = readFileSync(`${golden}mine.yaml`, "utf8");

interface Told {
  readonly host?: string;
  readonly method?: string;
  readonly path?: string;
  readonly executable?: string;
  readonly mcp?: object;
  readonly more?: object;
}

function seen(...requests: readonly Told[]): ObservedTraffic {
  const traffic = new ObservedTraffic();
  for (const [index, told] of requests.entries()) {
    const {
      host = "api.test:443",
      method = "GET",
      path = "/",
      executable = "/usr/bin/node",
    } = told;
    const event = { direction: "outbound", requestId: String(index), host, executable };
    const asked = { httpMethod: method, httpPath: path, ...(told.mcp && { mcp: told.mcp }) };
    traffic.hear({ ...event, ...asked, ...told.more, phase: "request" });
    traffic.hear({ ...event, phase: "response", bytesReceived: 1 });
  }
  return traffic;
}

const call = (city: string): Told => ({
  host: "mcp.test:443",
  method: "POST",
  path: "/mcp",
  mcp: { method: "tools/call", rpcId: 1, params: { name: "weather", arguments: { city } } },
});

async function merged(text: string | undefined, ...requests: readonly Told[]): Promise<string> {
  const taught = await learn({ traffic: seen(...requests), file: "mine.yaml", text });
  return taught.text ?? "";
}

describe("a file that somebody wrote", () => {
  test("keeps every line and comment, and gets what it lacks", async () => {
    const text = await merged(
      mine,
      { path: "/items/7" },
      { path: "/search" },
      { path: "/orders/2026-11-29", method: "POST" },
      call("Oslo"),
      { host: "new.test:8443", path: "/a%20b", executable: "/usr/bin/curl" },
    );
    await expect(text).toMatchFileSnapshot(`${golden}merged.yaml`);
    // Every line of the author's is there as it was written, in its order.
    const lines = text.split("\n");
    let at = -1;
    for (const line of mine.split("\n")) {
      at = lines.indexOf(line, at + 1);
      expect(at, line).toBeGreaterThanOrEqual(0);
    }
  });

  test("that says everything already stays byte for byte", async () => {
    expect(await merged(mine, { path: "/items/7" }, { path: "/search" })).toBe(mine);
    const once = await merged(mine, call("Oslo"));
    expect(await merged(once, call("Oslo"))).toBe(once);
  });

  test("is not talked out of what it denies", async () => {
    const traffic = seen({ path: "/items/secret" }, { path: "/items/1" });
    const taught = await learn({ traffic, file: "mine.yaml", text: mine });
    expect(taught.text).toBe(mine);
    expect(taught.notes.join("\n")).toContain("not learned: api.test:443: deny-rule");
  });

  test("with lists that are not indented keeps them so", async () => {
    const flat = `version: 1
network_policies:
  api:
    endpoints:
    - host: api.test
      port: 443
      protocol: rest
      enforcement: enforce
      rules:
      - allow: {method: GET, path: /a}
    binaries:
    - path: /usr/bin/node
`;
    const text = await merged(flat, { path: "/b" });
    expect(text).toContain("      - allow: {method: GET, path: /a}\n");
    expect(text).toContain("      - allow: { method: GET, path: /b }\n");
  });
});

describe("a new file", () => {
  test("is what was seen, in one order whatever came first", async () => {
    const requests: Told[] = [
      { path: "/items/7" },
      {
        path: "/v1/chat/completions",
        method: "POST",
        more: { inference: { api: "openai.chat", model: "m" } },
      },
      call("Oslo"),
      { host: "169.254.169.254:80", path: "/latest" },
      { host: "bucket.s3.amazonaws.com:443", path: "/k", method: "PUT" },
    ];
    const text = await merged(undefined, ...requests);
    await expect(text).toMatchFileSnapshot(`${golden}fresh.yaml`);
    expect(await merged(undefined, ...requests.toReversed())).toBe(text);
  });

  test("of a client's words has none that ends a comment", async () => {
    const text = await merged(undefined, { path: "/items/7\u2028evil:\n/42" });
    expect(text).not.toMatch(/^evil/m);
  });
});
