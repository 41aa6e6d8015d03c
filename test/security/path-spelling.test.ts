/** Rules judge what a path means to any server; the origin gets the spelling of the client, or nothing. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { type Arrival, CountingOrigins, surfacesOf } from "../support/egress-surfaces.ts";

const names = ["open.test", "ruled.test", "literal.test", "mcp.test", "listed.test"];

let origins: CountingOrigins;
let proxy: BridgeProxy;

beforeAll(async () => {
  origins = await CountingOrigins.start(names);
  const ports = [origins.plainPort, origins.tlsPort];
  const rest = { ports, protocol: "rest", enforcement: "enforce" };
  const endpoint = (host: string, more: object) => ({ host, ...rest, ...more });
  const get = (path: string) => ({ allow: { method: "GET", path } });
  const network_policies = {
    open: { endpoints: [endpoint("open.test", { access: "full" })] },
    ruled: {
      endpoints: [
        endpoint("ruled.test", {
          rules: [
            get("/bucket/**"),
            get("/mcp"),
            get("/model/x-v1:0/converse"),
            get("/model/y-v1%3a0/converse"),
          ],
          deny_rules: [{ method: "*", path: "/bucket/secret" }],
        }),
      ],
    },
    literal: {
      endpoints: [
        endpoint("literal.test", {
          rules: [get("/bucket/**")],
          allow_ambiguous_path: true,
          allow_encoded_slash: true,
        }),
      ],
    },
    mcp: {
      endpoints: [
        endpoint("mcp.test", { access: "full" }),
        endpoint("mcp.test", {
          path: "/mcp",
          access: "full",
          deny_rules: [{ method: "*", path: "**" }],
        }),
      ],
    },
    listed: {
      endpoints: [
        endpoint("listed.test", {
          access: "full",
          deny_rules: [{ method: "*", path: "/users/@alice" }],
        }),
      ],
    },
  };
  proxy = await BridgeProxy.start({
    ports: [origins.tlsPort],
    originCa: origins.authority.caPem,
    otherwise: "deny",
    names,
    plugins: [{ name: "egress-policy", config: { network_policies } }],
  });
});
afterAll(async () => {
  await proxy?.close();
  origins?.close();
});

const surfaces = [
  "plain HTTP",
  "plain HTTP in a CONNECT",
  "bridged HTTP/1.1",
  "bridged HTTP/2",
  "bridged WebSocket",
] as const;

function reach(surface: string, host: string, path: string): Promise<Arrival> {
  const found = surfacesOf(proxy, origins).find(({ name }) => name === surface);
  if (found === undefined) throw new Error(`no surface ${surface}`);
  return found.reach({ host, path });
}

describe.each(surfaces)("through %s", (surface) => {
  test("a path whose readings are all allowed arrives as it is spelt", async () => {
    for (const path of [
      "/bucket/report%3Bdraft.csv",
      "/bucket/report;draft.csv",
      "/bucket/a//b",
      "//bucket/x",
      "/bucket/a%2Bb%40c%2Cd?q=%2e%2E//;x",
      "/bucket/%7euser/%e4%b8%ad",
      "/model/x-v1%3A0/converse",
      "/model/anthropic.claude%3a0/converse",
    ]) {
      expect(await reach(surface, "open.test", path)).toEqual({ arrived: true, path });
    }
    for (const path of [
      "/bucket/report%3Bdraft.csv",
      "/bucket/report;draft.csv",
      "/bucket/a//b",
      "/mcp?x=1",
      "/model/x-v1%3A0/converse",
      "/model/x-v1:0/converse",
      "/model/y-v1:0/converse",
    ]) {
      expect(await reach(surface, "ruled.test", path)).toEqual({ arrived: true, path });
    }
  });

  test.each([
    ["open.test", "/a/../b", "allow_ambiguous_path"],
    ["open.test", "/a/./b", "allow_ambiguous_path"],
    ["open.test", "/a/%2e%2e/b", "allow_ambiguous_path"],
    ["open.test", "/a/..;/b", "allow_ambiguous_path"],
    ["open.test", "/a%5Cb", "allow_ambiguous_path"],
    ["open.test", "/a/%252e%252e/b", "allow_ambiguous_path"],
    ["open.test", "/a/%c0%ae%c0%ae/b", "allow_ambiguous_path"],
    ["open.test", "/a%2Fb", "allow_encoded_slash"],
    ["open.test", "/a%00b", "control-byte"],
    ["open.test", "/a%zz", "invalid-percent-encoding"],
    ["ruled.test", "//mcp", "allow_ambiguous_path"],
    ["ruled.test", "//elsewhere/mcp", "allow_ambiguous_path"],
    ["ruled.test", "/mcp;x=1", "allow_ambiguous_path"],
    ["ruled.test", "/bucket//secret", "allow_ambiguous_path"],
    ["ruled.test", "/bucket/secret;x", "allow_ambiguous_path"],
    ["ruled.test", "/bucket/secret%3Bx", "allow_ambiguous_path"],
    ["ruled.test", "/none;x/../bucket/y", "allow_ambiguous_path"],
    ["mcp.test", "//mcp", "allow_ambiguous_path"],
    ["mcp.test", "//x/mcp", "allow_ambiguous_path"],
  ])("%s%s has two readings: 400 with the reason", async (host, path, reason) => {
    const arrival = await reach(surface, host, path);
    expect(arrival).toMatchObject({ arrived: false, status: 400 });
    expect(arrival).toMatchObject({ text: expect.stringContaining(reason) });
  });

  test("an endpoint whose server takes paths literally gets them as they are spelt", async () => {
    for (const path of ["/bucket/a//b", "/bucket/a/../b", "/bucket/a%5Cb", "/bucket/%2F;x/%252F"]) {
      expect(await reach(surface, "literal.test", path)).toEqual({ arrived: true, path });
    }
    for (const path of ["/other", "//bucket/x", "/other/../bucket/x"]) {
      expect(await reach(surface, "literal.test", path)).toMatchObject({ status: 403 });
    }
  });

  test("a rule is not escaped by an encoding that says the same", async () => {
    for (const path of ["/users/%40alice", "/users/@%61lice", "/users/%40alic%65"]) {
      expect(await reach(surface, "listed.test", path)).toMatchObject({ status: 403 });
    }
    expect(await reach(surface, "listed.test", "/users/%40bob")).toMatchObject({ arrived: true });
  });
});
