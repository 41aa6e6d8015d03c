import { X509Certificate } from "node:crypto";
import { expect, test } from "vitest";
import { PeerTrust, type VerifiedPeer } from "../../../src/mtls/peer-trust.ts";
import { AllowedIds } from "../../../src/spiffe/allowed-ids.ts";
import { SpiffeAuthority, type TestSvid } from "../../support/spiffe-authority.ts";
import { HeldIdentity } from "../../support/held-identity.ts";

const authority = SpiffeAuthority.create();
const foreign = SpiffeAuthority.create("other.test");
const own = authority.svid("/own");
const peer = authority.svid("/ns/a/peer");

function trust(identity = new HeldIdentity(own, [authority]), list?: readonly string[]) {
  return { identity, trust: new PeerTrust(identity, new AllowedIds(list), "mtls.list") };
}

function judge(subject: PeerTrust, { cert }: Pick<TestSvid, "cert">) {
  const context = subject.context();
  if (context.kind === "refused") throw new Error(context.message);
  return subject.judge(new X509Certificate(cert), context);
}

function verified(subject: PeerTrust, svid: TestSvid): VerifiedPeer {
  const judged = judge(subject, svid);
  if (judged.kind === "refused") throw new Error(judged.message);
  return judged;
}

test("a peer is known by the one URI of its certificate", () => {
  expect(judge(trust().trust, peer)).toMatchObject({ id: { text: peer.spiffeId } });
});

test.each([
  ["two URIs", authority.svid("/x", { uris: ["spiffe://a/b", "spiffe://a/c"] }), "not-spiffe"],
  ["no URI", authority.svid("/x", { uris: [], dnsNames: ["a.test"] }), "not-spiffe"],
  ["a URI that is no SPIFFE ID", authority.svid("/x", { uris: ["https://a/b"] }), "not-spiffe"],
  ["an authority", authority.svid("/x", { isAuthority: true }), "not-spiffe"],
  ["a domain without a bundle", foreign.svid("/x"), "untrusted"],
])("%s: refused", (_what, svid, reason) => {
  expect(judge(trust().trust, svid)).toMatchObject({ reason });
});

test("no certificate at all is refused", () => {
  const { trust: subject } = trust();
  const context = subject.context();
  if (context.kind === "refused") throw new Error(context.message);
  expect(subject.judge(undefined, context)).toMatchObject({ reason: "no-certificate" });
});

test("a list lets in whom it names", () => {
  expect(judge(trust(undefined, ["spiffe://example.org/ns/a/*"]).trust, peer)).toHaveProperty(
    "kind",
    "peer",
  );
  const refused = judge(trust(undefined, ["spiffe://example.org/ns/b/*"]).trust, peer);
  expect(refused).toMatchObject({ reason: "not-allowed", peer: peer.spiffeId });
  expect(refused).toHaveProperty("message", `${peer.spiffeId} is not in mtls.list`);
});

test("without an SVID there is no context, and the reason is told", () => {
  const { trust: subject, identity } = trust();
  identity.update({ svid: undefined });
  expect(subject.context()).toMatchObject({ reason: "no-svid", message: /nothing to show/ });
});

test("an SVID that OpenSSL does not take is a reason, not an exception", () => {
  const { identity } = trust();
  const broken = Object.assign(Object.create(identity) as HeldIdentity, {
    current: () => ({ ...identity.current(), certificateChain: "nothing" }),
    bundle: () => [authority.caPem],
    trustDomains: () => ["example.org"],
  });
  const context = new PeerTrust(broken, new AllowedIds(), "mtls.list").context();
  expect(context).toMatchObject({ reason: "no-svid", message: /cannot be used/ });
});

test("several trust domains: every authority is held to its own", () => {
  const { trust: subject } = trust(new HeldIdentity(own, [authority, foreign]));
  const context = subject.context();
  if (context.kind === "refused") throw new Error(context.message);
  expect(context.tls.ca).toHaveLength(2);
  expect(context.tls.ca).not.toContain(authority.caPem);
});

test("a peer stays trusted while nothing that vouched for it is taken back", () => {
  const { trust: subject, identity } = trust();
  const known = verified(subject, peer);
  expect(subject.objection(known)).toBeUndefined();
  identity.update({ authorities: [authority, foreign, SpiffeAuthority.create()] });
  expect(subject.objection(known)).toBeUndefined();
});

test("a peer whose authority left the bundle is not trusted any more", () => {
  const { trust: subject, identity } = trust();
  const known = verified(subject, peer);
  identity.update({ authorities: [SpiffeAuthority.create()] });
  expect(subject.objection(known)).toMatchObject({ reason: "untrusted", peer: peer.spiffeId });
  identity.update({ authorities: [foreign] });
  expect(subject.objection(known)).toMatchObject({ reason: "untrusted", message: /has no bundle/ });
});

test("another authority that leaves does not touch a peer that one which stays has signed", () => {
  const next = SpiffeAuthority.create();
  const { trust: subject, identity } = trust(new HeldIdentity(own, [authority, next]));
  const direct = verified(subject, next.svid("/x"));
  const behindIntermediate = verified(subject, next.intermediate().svid("/x"));
  identity.update({ authorities: [next] });
  expect(subject.objection(direct)).toBeUndefined();
  // Which authority led to it cannot be told here: it has to show that again.
  expect(subject.objection(behindIntermediate)).toMatchObject({ reason: "untrusted" });
});

test("what was taken back during the handshake counts", () => {
  const { trust: subject, identity } = trust();
  const context = subject.context();
  if (context.kind === "refused") throw new Error(context.message);
  identity.update({ authorities: [SpiffeAuthority.create()] });
  const judged = subject.judge(new X509Certificate(peer.cert), context);
  expect(judged).toMatchObject({ reason: "untrusted" });
});
