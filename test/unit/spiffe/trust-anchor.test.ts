import { X509Certificate } from "node:crypto";
import { connect, createServer, type TLSSocket } from "node:tls";
import { expect, test } from "vitest";
import { anchorOf } from "../../../src/spiffe/trust-anchor.ts";
import { SpiffeAuthority, type TestSvid } from "../../support/spiffe-authority.ts";
import { TestAuthority } from "../../support/certs.ts";

const one = SpiffeAuthority.create("one.test");
const other = SpiffeAuthority.create("other.test");
const server = one.svid("/server");
const anchors = [anchorOf(one.caPem, "one.test"), anchorOf(other.caPem, "other.test")];

/** What a server that trusts both anchors finds wrong with a client. */
async function verdict({ cert, key }: TestSvid): Promise<unknown> {
  const front = createServer({
    cert: server.cert,
    key: server.key,
    ca: anchors,
    requestCert: true,
    rejectUnauthorized: false,
  });
  await new Promise<void>((resolve) => front.listen(0, "127.0.0.1", resolve));
  const address = front.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const seen = new Promise<TLSSocket>((resolve) => front.once("secureConnection", resolve));
  const client = connect({
    port: address.port,
    host: "127.0.0.1",
    cert,
    key,
    ca: anchors,
    checkServerIdentity: () => undefined,
  });
  client.on("error", () => undefined);
  const { authorized, authorizationError } = await seen;
  client.destroy();
  front.close();
  return authorized ? undefined : authorizationError;
}

test.each([
  ["an SVID of its own domain", one.svid("/a"), true],
  ["an SVID behind an intermediate", one.intermediate().svid("/a"), true],
  ["an SVID of the other domain", other.svid("/a"), true],
  [
    "an SVID in the name of the other domain",
    one.svid("/a", { uris: ["spiffe://other.test/a"] }),
    false,
  ],
  [
    "the same behind an intermediate",
    one.intermediate().svid("/a", { uris: ["spiffe://other.test/a"] }),
    false,
  ],
  [
    "one with a second URI of the other domain",
    one.svid("/a", { uris: ["spiffe://one.test/a", "spiffe://other.test/a"] }),
    false,
  ],
  ["names of hosts beside the URI", one.svid("/a", { dnsNames: ["a.example"] }), true],
])("%s: %s", async (_what, svid, isTrusted) => {
  expect(await verdict(svid)).toBe(isTrusted ? undefined : "UNSPECIFIED");
});

test("an anchor keeps the name and the key of its authority", () => {
  const made = new X509Certificate(anchors[0] ?? "");
  const given = new X509Certificate(one.caPem);
  expect([made.subject, made.serialNumber]).toEqual([given.subject, given.serialNumber]);
  expect(made.publicKey.equals(given.publicKey)).toBe(true);
  expect(made.ca).toBe(true);
});

test("an anchor of an anchor is the same: one constraint, not two", () => {
  expect(anchorOf(anchors[0] ?? "", "one.test")).toBe(anchors[0]);
});

test("an authority with an elliptic key is held to its domain as well", async () => {
  const { caPem } = await TestAuthority.create("elliptic");
  expect(new X509Certificate(anchorOf(caPem, "one.test")).ca).toBe(true);
});
