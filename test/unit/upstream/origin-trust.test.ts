import { once } from "node:events";
import { type AddressInfo, connect } from "node:net";
import { createServer } from "node:tls";
import { expect, test } from "vitest";
import { parseAuthority } from "../../../src/net/destination.ts";
import { OriginTrust } from "../../../src/upstream/origin-trust.ts";
import { type AltName, leafCertificate } from "../../support/client-certificate.ts";

/** What comes of a handshake with a server that has these names, for a host. */
async function secured(host: string, commonName: string, names: readonly AltName[]) {
  const { ca, cert, key } = leafCertificate(commonName, names);
  const server = createServer({ cert, key }).listen(0, "127.0.0.1");
  server.on("tlsClientError", () => undefined);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const trust = new OriginTrust({
    extraCertificates: [ca],
    insecureHosts: { matches: () => false },
    minVersion: "TLSv1.2",
    handshakeTimeoutMs: 10_000,
  });
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    const tls = await trust.secure(socket, parseAuthority(`${host}:${port}`, "https"));
    tls.destroy();
    return "verified";
  } catch (error) {
    return error;
  } finally {
    socket.destroy();
    server.close();
  }
}

test.each<readonly [string, AltName]>([
  ["an e-mail address", { type: 1, value: "admin@api.test" }],
  ["a URI", { type: 6, value: "spiffe://api.test/server" }],
  ["an address", { type: 7, ip: "127.0.0.1" }],
  ["another DNS name", { type: 2, value: "other.test" }],
])("the common name does not count beside %s (RFC 9525)", async (_what, name) => {
  expect(await secured("api.test", "api.test", [name])).toMatchObject({ code: "upstream.tls" });
});

test("a DNS name, a wildcard and an address count", async () => {
  expect(await secured("api.test", "other", [{ type: 2, value: "api.test" }])).toBe("verified");
  expect(await secured("a.api.test", "", [{ type: 2, value: "*.api.test" }])).toBe("verified");
  expect(await secured("127.0.0.1", "other", [{ type: 7, ip: "127.0.0.1" }])).toBe("verified");
  expect(await secured("127.0.0.1", "127.0.0.1", [{ type: 2, value: "api.test" }])).toMatchObject({
    code: "upstream.tls",
  });
});
