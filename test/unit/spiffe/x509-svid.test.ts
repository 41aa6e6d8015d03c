import { X509Certificate } from "node:crypto";
import { describe, expect, test } from "vitest";
import { spiffeIdOf } from "../../../src/spiffe/certificate.ts";
import { readBundle, readSvid } from "../../../src/spiffe/x509-svid.ts";
import { SpiffeAuthority, type SvidOptions } from "../../support/spiffe-authority.ts";

const authority = SpiffeAuthority.create();
const other = SpiffeAuthority.create();
const hourMs = 3_600_000;
const good = authority.svid("/agent");

function idOf(options: SvidOptions): unknown {
  const { cert } = authority.svid("/agent", options);
  return spiffeIdOf(new X509Certificate(cert).raw);
}

describe("the SPIFFE ID of a certificate", () => {
  test("is its one URI, whatever DNS names stand beside it", () => {
    const id = { text: "spiffe://example.org/agent", trustDomain: "example.org", path: "/agent" };
    expect(idOf({})).toEqual(id);
    expect(idOf({ dnsNames: ["a.test", "spiffe://example.org/other"] })).toEqual(id);
  });

  test.each<[string, SvidOptions, string]>([
    ["no URI", { uris: [] }, "no URI"],
    ["J17: two URIs", { uris: ["spiffe://example.org/a", "spiffe://example.org/b"] }, "has 2 URIs"],
    ["the same URI twice", { uris: ["spiffe://a/b", "spiffe://a/b"] }, "has 2 URIs"],
    ["a SPIFFE ID and another URI", { uris: ["spiffe://a/b", "https://a/b"] }, "has 2 URIs"],
    ["a URI of the web", { uris: ["https://example.org/agent"] }, "no SPIFFE ID"],
    ["an ID with a query", { uris: ["spiffe://example.org/a?b"] }, "no SPIFFE ID"],
    ["an empty URI", { uris: [""] }, "no SPIFFE ID"],
    ["an authority", { isAuthority: true }, "of an authority"],
    [
      "a signer of certificates",
      { keyUsage: { digitalSignature: true, keyCertSign: true } },
      "may sign certificates",
    ],
    [
      "a signer of revocation lists",
      { keyUsage: { digitalSignature: true, cRLSign: true } },
      "may sign revocation lists",
    ],
    ["a key that may not sign", { keyUsage: { keyEncipherment: true } }, "key usage"],
  ])("is none for %s", (_name, options, why) => {
    expect(idOf(options)).toContain(why);
  });

  test("is none for bytes that are no certificate", () => {
    for (const bytes of ["", "x", "\x30\x80", "\x30\x84\x7f\xff\xff\xff", "\x30\x03\x02\x01"])
      expect(spiffeIdOf(Buffer.from(bytes, "latin1"))).toContain("cannot be read");
  });

  test("survives every cut and every changed byte of a certificate", () => {
    const { raw } = new X509Certificate(good.cert);
    for (let at = 0; at < raw.length; at += 1) {
      expect(typeof spiffeIdOf(raw.subarray(0, at))).toBe("string");
      const changed = Buffer.from(raw);
      changed[at] = (changed[at] ?? 0) ^ 0xff;
      spiffeIdOf(changed);
    }
  });
});

describe("an X.509-SVID", () => {
  const raw = {
    spiffeId: good.spiffeId,
    certificates: good.certDer,
    privateKey: good.keyDer,
  };

  test("is taken with its chain and its key", () => {
    const { certDer, keyDer, cert, key } = authority.intermediate().svid("/deep");
    const svid = readSvid({ certificates: certDer, privateKey: keyDer }, Date.now());
    if (typeof svid === "string") throw new Error(svid);
    expect(svid).toMatchObject({
      spiffeId: "spiffe://example.org/deep",
      trustDomain: "example.org",
    });
    expect(svid.certificates).toHaveLength(2);
    expect(svid.certificateChain).toBe(cert.replaceAll("\r", ""));
    expect(svid.privateKey.reveal()).toBe(key);
    expect(String(svid.privateKey)).toBe("[secret]");
    expect(svid.expiresAt).toBeGreaterThan(Date.now());
  });

  const expired = authority.svid("/agent", { notAfter: new Date(Date.now() - hourMs) });
  test.each<[string, Partial<typeof raw>, string]>([
    ["expired", { certificates: expired.certDer, privateKey: expired.keyDer }, "has expired at"],
    ["another's", { spiffeId: "spiffe://example.org/other" }, "not of spiffe://example.org/other"],
    ["with another's key", { privateKey: other.svid().keyDer }, "does not belong"],
    ["without a certificate", { certificates: Buffer.alloc(0) }, "has no certificate"],
    ["of garbage", { certificates: Buffer.from("garbage") }, "cannot be read"],
    ["with a garbage key", { privateKey: Buffer.from("garbage") }, "not PKCS#8"],
    [
      "with a leaf as its intermediate",
      { certificates: Buffer.concat([good.certDer, other.svid().certDer]) },
      "an intermediate certificate is not that of an authority",
    ],
    [
      "with an endless chain",
      { certificates: Buffer.concat(Array.from({ length: 17 }, () => good.certDer)) },
      "more than 16",
    ],
  ])("that is %s is refused with words", (_name, over, why) => {
    expect(readSvid({ ...raw, ...over }, Date.now())).toContain(why);
  });

  test("that cannot be read says nothing of its key", () => {
    const text = readSvid({ ...raw, privateKey: Buffer.from("very-secret") }, Date.now());
    expect(text).not.toContain("very-secret");
  });
});

describe("a bundle", () => {
  test("is its authorities, each once", () => {
    const { caDer, caPem } = authority;
    expect(readBundle(Buffer.concat([caDer, other.caDer, caDer]))).toEqual(
      [caPem, other.caPem].map((pem) => pem.replaceAll("\r", "")),
    );
  });

  test.each([
    ["nothing", Buffer.alloc(0), "empty"],
    ["garbage", Buffer.from("garbage"), "cannot be read"],
    [
      "too many",
      Buffer.concat(Array.from({ length: 257 }, () => authority.caDer)),
      "more than 256",
    ],
  ])("of %s is refused with words", (_name, bytes, why) => {
    expect(readBundle(bytes)).toContain(why);
  });
});
