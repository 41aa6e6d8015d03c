import { execFile, spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { addressBytes } from "../../../src/tlsbridge/der.ts";
import type { KeyType } from "../../../src/tlsbridge/x509.ts";
import { Issuer, makeKeyPair, readCertificate, toPem } from "../../../src/tlsbridge/x509.ts";
import { TestAuthority, temporaryDirectory, validNow } from "../../support/certs.ts";

const run = promisify(execFile);
const has = (tool: string): boolean => spawnSync("which", [tool]).status === 0;

describe.each<[KeyType, KeyType]>([
  ["ecdsa-p256", "ecdsa-p256"],
  ["ecdsa-p256", "rsa-2048"],
  ["rsa-2048", "ecdsa-p256"],
  ["rsa-2048", "rsa-2048"],
])("an authority with %s and a leaf with %s", (authorityKey, keyType) => {
  test("node verifies the leaf for its name and for its address (I15)", async () => {
    const authority = await TestAuthority.create("root", authorityKey);
    const { cert, key } = await authority.server(["a.test", "10.1.2.3", "2001:db8::5"], {
      keyType,
    });
    const leaf = new X509Certificate(cert);
    expect(leaf.verify(authority.key.publicKey)).toBe(true);
    expect(leaf.checkIssued(new X509Certificate(authority.caPem))).toBe(true);
    expect(leaf.checkHost("a.test")).toBe("a.test");
    expect(leaf.checkIP("10.1.2.3")).toBe("10.1.2.3");
    expect(leaf.checkIP("2001:db8::5")).toBeDefined();
    expect(leaf.ca).toBe(false);
    expect(leaf.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1"]);
    expect(key).toContain("PRIVATE KEY");
  });

  test.skipIf(!has("openssl"))("OpenSSL's strict check accepts the chain", async () => {
    const root = await TestAuthority.create("root", authorityKey);
    const between = await root.intermediate("between", authorityKey);
    const directory = await temporaryDirectory();
    const { cert } = await between.server(["a.test", "10.1.2.3"], { keyType });
    await writeFile(join(directory, "ca.pem"), root.caPem);
    await writeFile(join(directory, "leaf.pem"), cert);
    const strict = [
      "verify",
      "-x509_strict",
      "-purpose",
      "sslserver",
      "-verify_hostname",
      "a.test",
    ];
    const files = ["-CAfile", "ca.pem", "-untrusted", "leaf.pem", "leaf.pem"];
    const { stdout } = await run("openssl", [...strict, ...files], { cwd: directory });
    expect(stdout).toContain("leaf.pem: OK");
  });
});

describe("a leaf", () => {
  const leafFor = async (...names: string[]): Promise<X509Certificate> => {
    const authority = await TestAuthority.create();
    return new X509Certificate((await authority.server(names)).cert);
  };

  test("carries its name as common name when it fits", async () => {
    expect((await leafFor("a.test")).subject).toBe("CN=a.test");
  });

  test("has no common name beyond 64 characters, and still its name", async () => {
    const name = `${"a".repeat(60)}.b.test`;
    const leaf = await leafFor(name);
    expect(leaf.subject ?? "").toBe("");
    expect(leaf.checkHost(name)).toBe(name);
  });

  test("has a serial of about 128 random bits", async () => {
    const authority = await TestAuthority.create();
    const serials = await Promise.all(
      Array.from({ length: 20 }, async () => new X509Certificate((await authority.server()).cert)),
    );
    const numbers = serials.map(({ serialNumber }) => BigInt(`0x${serialNumber}`));
    expect(new Set(numbers).size).toBe(20);
    for (const number of numbers) expect(number > 2n ** 90n && number < 2n ** 128n).toBe(true);
  });

  test.each(["", "a..b", "evil.test\0.good.test", "*.test", "bücher.test", "fe80::1%eth0", "a b"])(
    "is not issued for %j",
    async (name) => {
      await expect(leafFor(name)).rejects.toMatchObject({ code: "request.malformed" });
    },
  );

  test("may end after 2049, where the date has another form", async () => {
    const key = await makeKeyPair("ecdsa-p256");
    const validity = { ...validNow(), notAfter: new Date("2055-01-02T03:04:05Z") };
    const { pem } = await Issuer.selfSigned("far", key, validity);
    expect(new X509Certificate(pem).validToDate).toEqual(validity.notAfter);
  });
});

test("an authority says what it may do", async () => {
  const authority = await TestAuthority.create();
  const facts = await readCertificate(new X509Certificate(authority.caPem).raw);
  expect(facts).toMatchObject({ isAuthority: true, signsCertificates: true });
  const leaf = new X509Certificate((await authority.server()).cert);
  expect(await readCertificate(leaf.raw)).toMatchObject({
    isAuthority: false,
    signsCertificates: false,
    extendedUsages: ["1.3.6.1.5.5.7.3.1"],
  });
});

test.each([47, 48, 49, 96, 97])("PEM of %d bytes has no empty line", (length) => {
  const pem = toPem("CERTIFICATE", Buffer.alloc(length, 1));
  expect(pem).not.toMatch(/\n\n/);
  expect(pem.split("\n").every((line) => line.length <= 64)).toBe(true);
});

test.each([
  ["1.2.3.4", [1, 2, 3, 4]],
  ["::", Array.from({ length: 16 }, () => 0)],
  ["::1", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]],
  ["2001:db8::", [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
  ["1:2:3:4:5:6:7:8", [0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8]],
  ["::ffff:1.2.3.4", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4]],
])("the bytes of %s", (text, expected) => {
  expect([...Buffer.from(addressBytes(text) ?? "", "latin1")]).toEqual(expected);
});
