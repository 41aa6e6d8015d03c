import { X509Certificate } from "node:crypto";
import * as fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import { isHostName } from "../../src/net/client-hello.ts";
import { addressBytes } from "../../src/tlsbridge/der.ts";
import type { LeafTemplate } from "../../src/tlsbridge/x509.ts";
import { Issuer, makeKeyPair } from "../../src/tlsbridge/x509.ts";
import { validNow } from "../support/certs.ts";

const timeBox = { interruptAfterTimeLimit: 1_500, numRuns: 1_000 };
let template: LeafTemplate;

beforeAll(async () => {
  const key = await makeKeyPair("ecdsa-p256");
  const { issuer } = await Issuer.selfSigned("root", key, validNow());
  template = issuer.leafTemplate((await makeKeyPair("ecdsa-p256")).publicKey);
});

test("a leaf is for exactly the host name that it was asked for", () => {
  fc.assert(
    fc.property(fc.domain(), (name) => {
      const leaf = new X509Certificate(template.issue([name], validNow()));
      expect(leaf.subjectAltName).toBe(`DNS:${name}`);
      expect(leaf.checkHost(name)).toBe(name);
    }),
    timeBox,
  );
});

test("a leaf is for exactly the address that it was asked for, in any spelling", () => {
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (address) => {
      const leaf = new X509Certificate(template.issue([address], validNow()));
      expect(leaf.checkIP(address)).toBeDefined();
      expect(addressBytes(address)?.length).toBe(address.includes(":") ? 16 : 4);
    }),
    timeBox,
  );
});

test("text that is neither never becomes a certificate", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      fc.pre(!isHostName(text) && addressBytes(text) === undefined);
      expect(() => template.issue([text], validNow())).toThrow("not a host name");
    }),
    timeBox,
  );
});
