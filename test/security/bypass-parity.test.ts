/**
 * One table of forbidden destinations, through every surface: what one refuses, all refuse, and nobody is dialled.
 *
 * Captured connections need a kernel that redirects: test/network/capture-names.test.ts has the same table for them.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { forbidden } from "../support/forbidden-destinations.ts";
import { CountingOrigins, type EgressSurface, surfacesOf } from "../support/egress-surfaces.ts";

const inTunnels = (door: string): string[] => [
  door,
  `plain HTTP in ${door}`,
  `WebSocket in ${door}`,
  `bridged HTTP/1.1 in ${door}`,
  `bridged WebSocket in ${door}`,
];
const names = [
  "plain HTTP",
  "WebSocket",
  "CONNECT",
  "plain HTTP in a CONNECT",
  "WebSocket in a CONNECT",
  "plain HTTP/2",
  "bridged HTTP/1.1",
  "bridged WebSocket",
  "bridged HTTP/2",
  ...inTunnels("SOCKS5"),
  ...inTunnels("HTTP/2 CONNECT"),
];

let origins: CountingOrigins;
let proxy: BridgeProxy;
let surfaces: ReadonlyMap<string, EgressSurface>;

beforeAll(async () => {
  origins = await CountingOrigins.start(["www.allowed.test", "127.0.0.1"]);
  proxy = await BridgeProxy.start({
    ports: [origins.tlsPort],
    originCa: origins.authority.caPem,
    otherwise: "deny",
    plugins: [
      { name: "egress-policy", config: { allow: ["*"], deny: ["evil.test", "**.evil.test"] } },
    ],
    file: {
      egress: {
        private_networks: "deny",
        allow_ips: ["127.0.0.1/32"],
        hosts: {
          "www.allowed.test": ["127.0.0.1"],
          "evil.test": ["127.0.0.1"],
          "a.b.evil.test": ["127.0.0.1"],
          "metadata.google.internal": ["127.0.0.1"],
          "rebound.test": ["169.254.169.254"],
          "mixed.test": ["10.0.0.9", "127.0.0.2", "::1"],
          "mapped.test": ["::ffff:127.0.0.2"],
        },
      },
    },
  });
  surfaces = new Map(surfacesOf(proxy, origins).map((surface) => [surface.name, surface]));
});
afterAll(async () => {
  await proxy?.close();
  origins?.close();
});

describe.each(names)("%s", (name) => {
  const surface = (): EgressSurface => {
    const found = surfaces.get(name);
    if (found === undefined) throw new Error(`there is no surface ${name}`);
    return found;
  };

  test("reaches what is allowed", async () => {
    const arrival = await surface().reach({ host: "www.allowed.test", path: "/x" });
    expect(arrival).toEqual({ arrived: true, path: "/x" });
    expect(origins.connections).toBeGreaterThan(0);
  });

  test.each(forbidden)("refuses %s: %s", async (_what, host) => {
    const before = origins.connections;
    const arrival = await surface().reach({ host });
    expect(arrival).toMatchObject({ arrived: false });
    if (!arrival.arrived) expect([400, 403]).toContain(arrival.status);
    expect(origins.connections).toBe(before);
  });

  test.each(["forward", "sessions", "stats", "health"])(
    "refuses the proxy's own %s",
    async (own) => {
      const { port } = proxy.address(own);
      for (const host of ["127.0.0.1", "www.allowed.test", "0.0.0.0", "[::ffff:127.0.0.1]"]) {
        const arrival = await surface().reach({ host, port });
        expect(arrival).toMatchObject({ arrived: false, status: 403 });
      }
    },
  );
});

test("every surface of the proxy is in the table", () => {
  expect([...surfaces.keys()]).toEqual(names);
});
