/** One table of forbidden destinations, through every surface: what one refuses, all refuse, and nobody is dialled. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { CountingOrigins, type EgressSurface, surfacesOf } from "../support/egress-surfaces.ts";

/** What must be refused although the list allows every host but one; the status is the proxy's. */
const forbidden: readonly (readonly [what: string, host: string])[] = [
  ["a denied host", "evil.test"],
  ["a denied host in capitals", "EVIL.Test"],
  ["a denied host with the root dot", "evil.test."],
  ["a denied sub-domain", "a.b.evil.test"],
  ["the metadata service", "169.254.169.254"],
  ["… as one number", "2852039166"],
  ["… in hexadecimal", "0xa9fea9fe"],
  ["… in octal", "0251.0376.0251.0376"],
  ["… in three parts", "169.254.43518"],
  ["… mapped into IPv6", "[::ffff:169.254.169.254]"],
  ["… compatible with IPv6", "[::169.254.169.254]"],
  ["… through NAT64", "[64:ff9b::a9fe:a9fe]"],
  ["… through local NAT64", "[64:ff9b:1::a9fe:a9fe]"],
  ["… through local NAT64 of a /48", "[64:ff9b:1:a9fe:a9:fe00::]"],
  ["… through 6to4", "[2002:a9fe:a9fe::1]"],
  ["… through Teredo", "[2001:0:a9fe:a9fe::1]"],
  ["… as a Teredo client", "[2001:0:808:808::5601:5601]"],
  ["… through ISATAP", "[2600::5efe:a9fe:a9fe]"],
  ["… through ISATAP, universal bit set", "[2600::200:5efe:a9fe:a9fe]"],
  ["metadata over IPv6", "[fd00:ec2::254]"],
  ["metadata of Azure", "168.63.129.16"],
  ["metadata of Alibaba", "100.100.100.200"],
  ["metadata of Oracle", "192.0.0.192"],
  ["a metadata name", "metadata.google.internal"],
  ["a metadata name with the root dot", "Metadata.Google.Internal."],
  ["loopback", "127.0.0.2"],
  ["loopback in short", "127.2"],
  ["loopback over IPv6", "[::1]"],
  ["no address", "0.0.0.0"],
  ["no address over IPv6", "[::]"],
  ["this network", "0.1.2.3"],
  ["link-local", "169.254.1.1"],
  ["link-local over IPv6", "[fe80::1]"],
  ["a private network", "10.1.2.3"],
  ["another private network", "172.31.0.1"],
  ["a third private network", "192.168.1.1"],
  ["shared address space", "100.64.0.1"],
  ["unique local IPv6", "[fd12:3456::1]"],
  ["site-local IPv6", "[fec0::1]"],
  ["multicast", "224.0.0.1"],
  ["multicast over IPv6", "[ff02::1]"],
  ["broadcast", "255.255.255.255"],
  ["a reserved network", "240.0.0.1"],
  ["a documentation network", "203.0.113.7"],
  ["a name for the metadata service", "rebound.test"],
  ["a name for private and loopback addresses", "mixed.test"],
  ["a name for an IPv6 form of loopback", "mapped.test"],
  ["a host with user information", "www.allowed.test@evil.test"],
  ["full-width letters", "ｅｖｉｌ.test"],
  ["ideographic dots", "evil。test"],
  ["an empty label", "a..test"],
  ["a zone", "[fe80::1%25eth0]"],
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

describe.each([
  "plain HTTP",
  "WebSocket",
  "CONNECT",
  "bridged HTTP/1.1",
  "bridged WebSocket",
  "bridged HTTP/2",
])("%s", (name) => {
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
  expect([...surfaces.keys()]).toEqual([
    "plain HTTP",
    "WebSocket",
    "CONNECT",
    "bridged HTTP/1.1",
    "bridged WebSocket",
    "bridged HTTP/2",
  ]);
});
