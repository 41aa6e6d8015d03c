import { createPrivateKey, generateKeyPairSync, X509Certificate } from "node:crypto";
import { chmod, mkdir, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import {
  authorityFromFiles,
  ensureAuthorityFiles,
  readAuthorityFiles,
} from "../../../src/tlsbridge/authority-files.ts";
import { CertificateAuthoritySource } from "../../../src/tlsbridge/authority-source.ts";
import { CertificateAuthority } from "../../../src/tlsbridge/certificate-authority.ts";
import { expired, TestAuthority, temporaryDirectory, validNow } from "../../support/certs.ts";

let directory: string;

beforeEach(async () => {
  directory = await temporaryDirectory();
});

const load = async (): Promise<CertificateAuthority> =>
  authorityFromFiles(await readAuthorityFiles(directory), Date.now());
const read = (name: string): Promise<string> => readFile(join(directory, name), "utf8");
const snapshot = async (): Promise<string[]> =>
  Promise.all(["tls.crt", "tls.key", "ca.crt"].map((name) => read(name)));

describe("a generated set", () => {
  test("is complete, private and for one year (I17)", async () => {
    const nested = join(directory, "a", "b");
    expect(await ensureAuthorityFiles(nested, Date.now())).toBe(true);
    directory = nested;
    expect((await stat(join(nested, "tls.key"))).mode & 0o777).toBe(0o600);
    expect((await stat(join(nested, "tls.crt"))).mode & 0o777).toBe(0o644);
    expect(await read("ca.crt")).toBe(await read("tls.crt"));
    const certificate = new X509Certificate(await read("ca.crt"));
    expect(certificate.subject).toBe("CN=authbridge-tls-bridge-ca");
    const days = (certificate.validToDate.getTime() - Date.now()) / 86_400_000;
    expect(Math.round(days)).toBe(365);
    expect((await readdir(nested)).toSorted()).toEqual(["ca.crt", "tls.crt", "tls.key"]);
    expect((await load()).chainPem).toBe("");
  });

  test("is none of the future where a clock that was ahead is set back by an hour", async () => {
    await ensureAuthorityFiles(directory, Date.now() + 3_600_000);
    expect((await load()).notBefore.getTime()).toBeLessThan(Date.now());
  });

  test("is left alone when it is whole (I19)", async () => {
    await ensureAuthorityFiles(directory, Date.now());
    const before = await snapshot();
    expect(await ensureAuthorityFiles(directory, Date.now())).toBe(false);
    expect(await snapshot()).toEqual(before);
  });

  test("is not overwritten when it is whole but garbage (I20)", async () => {
    for (const name of ["tls.crt", "tls.key", "ca.crt"])
      await writeFile(join(directory, name), name);
    const opened = CertificateAuthoritySource.open({ directory, generate: true });
    await expect(opened).rejects.toMatchObject({ code: "config.invalid" });
    expect(await snapshot()).toEqual(["tls.crt", "tls.key", "ca.crt"]);
  });

  test.each([
    ["tls.crt"],
    ["tls.key"],
    ["ca.crt"],
    ["tls.crt", "tls.key"],
    ["tls.crt", "ca.crt"],
    ["tls.key", "ca.crt"],
  ])("is made anew when it lacks %s %s (I21)", async (...missing) => {
    await ensureAuthorityFiles(directory, Date.now());
    const { fingerprint } = await load();
    for (const name of missing) await rm(join(directory, name));
    expect(await ensureAuthorityFiles(directory, Date.now())).toBe(true);
    expect((await load()).fingerprint).not.toBe(fingerprint);
  });

  test("is one set when many processes start on one directory", async () => {
    const made = await Promise.all(
      Array.from({ length: 8 }, () => ensureAuthorityFiles(directory, Date.now())),
    );
    expect(made.filter(Boolean)).toHaveLength(1);
    await expect(load()).resolves.toBeDefined();
  });

  test("is made in spite of a lock that a dead process left", async () => {
    const lock = join(directory, ".authbridge-ca.lock");
    await writeFile(lock, "");
    await utimes(lock, 1_000, 1_000);
    expect(await ensureAuthorityFiles(directory, Date.now())).toBe(true);
  });

  test("is refused when every user can read its key", async () => {
    await ensureAuthorityFiles(directory, Date.now());
    await chmod(join(directory, "tls.key"), 0o644);
    const opened = CertificateAuthoritySource.open({ directory, generate: true });
    await expect(opened).rejects.toThrow(/tls\.key can be read by every user/);
  });

  test("that cannot be written says where", async () => {
    const file = join(directory, "file");
    await writeFile(file, "");
    await expect(ensureAuthorityFiles(join(file, "ca"), 0)).rejects.toMatchObject({
      code: "config.invalid",
      message: expect.stringContaining(file),
    });
  });
});

describe("a set on disk", () => {
  test("that is missing is refused, naming the files and the way out (I18)", async () => {
    await expect(CertificateAuthoritySource.open({ directory })).rejects.toThrow(
      /lacks tls\.crt, tls\.key, ca\.crt.*generate_ca/,
    );
  });

  test.each(["pkcs8", "pkcs1", "sec1"] as const)("may hold its key as %s (I22)", async (type) => {
    const authority = await TestAuthority.create(
      "ca",
      type === "pkcs1" ? "rsa-2048" : "ecdsa-p256",
    );
    await authority.write(directory);
    const key = createPrivateKey(authority.keyPem).export({ type, format: "pem" }).toString();
    const parameters =
      "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    await writeFile(join(directory, "tls.key"), type === "sec1" ? parameters + key : key);
    expect((await load()).fingerprint).toBe(
      new X509Certificate(authority.certificatePem).fingerprint256,
    );
  });

  test("with an intermediate sends it after the leaf, and not the root", async () => {
    const root = await TestAuthority.create();
    const between = await root.intermediate();
    await between.write(directory);
    const { chainPem } = await load();
    expect(new X509Certificate(chainPem).subject).toBe("CN=test intermediate");
    expect(chainPem.match(/BEGIN/g)).toHaveLength(1);
  });

  test("may carry its root in tls.crt, and other roots in ca.crt", async () => {
    const root = await TestAuthority.create();
    const other = await TestAuthority.create("other");
    await (await root.intermediate()).write(directory);
    await writeFile(join(directory, "tls.crt"), (await read("tls.crt")) + root.caPem);
    await writeFile(join(directory, "ca.crt"), other.caPem + root.caPem);
    expect((await load()).chainPem.match(/BEGIN/g)).toHaveLength(1);
  });

  test("runs out with the first of its certificates", async () => {
    const soon = { ...validNow(), notAfter: new Date(1_000 * Math.ceil(Date.now() / 1_000 + 60)) };
    const root = await TestAuthority.create("root", "ecdsa-p256", soon);
    await (await root.intermediate()).write(directory);
    expect((await load()).notAfter).toEqual(soon.notAfter);
  });

  const good = (): Promise<TestAuthority> => TestAuthority.create();
  test.each<[string, RegExp, () => Promise<void>]>([
    [
      "a leaf (I22)",
      /tls\.crt is not a certificate authority/,
      async () => {
        const { cert, key } = await (await good()).server();
        await writeFile(join(directory, "tls.crt"), cert);
        await writeFile(join(directory, "tls.key"), key);
      },
    ],
    [
      "another key (I22)",
      /tls\.key is not the key of the certificate/,
      async () => writeFile(join(directory, "tls.key"), (await good()).keyPem),
    ],
    [
      "another ca.crt",
      /ca\.crt does not hold the issuer/,
      async () => writeFile(join(directory, "ca.crt"), (await good()).caPem),
    ],
    [
      "an expired certificate",
      /tls\.crt expired on/,
      async () => {
        await (await TestAuthority.create("old", "ecdsa-p256", expired())).write(directory);
      },
    ],
    [
      "a certificate from the future",
      /tls\.crt is not valid before/,
      async () => {
        const future = {
          notBefore: new Date(Date.now() + 1e6),
          notAfter: new Date(Date.now() + 1e8),
        };
        await (await TestAuthority.create("new", "ecdsa-p256", future)).write(directory);
      },
    ],
    [
      "an expired root above a good intermediate",
      /ca\.crt expired on/,
      async () => {
        const root = await TestAuthority.create("old", "ecdsa-p256", expired());
        await (await root.intermediate()).write(directory);
      },
    ],
    [
      "a chain that does not hang together",
      /do not follow each other/,
      async () => {
        const chain = (await (await good()).intermediate()).certificatePem;
        const between = await (await good()).intermediate("b");
        await between.write(directory);
        await writeFile(join(directory, "tls.crt"), between.certificatePem + chain);
        await writeFile(join(directory, "ca.crt"), (await good()).caPem);
      },
    ],
    [
      "an empty certificate file",
      /tls\.crt holds no PEM certificate/,
      async () => writeFile(join(directory, "tls.crt"), ""),
    ],
    [
      "a broken certificate",
      /tls\.crt holds a certificate that cannot be read/,
      async () =>
        writeFile(
          join(directory, "tls.crt"),
          "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        ),
    ],
    [
      "an encrypted key",
      /tls\.key is encrypted/,
      async () => {
        const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
        const pem = privateKey.export({
          type: "pkcs8",
          format: "pem",
          cipher: "aes-256-cbc",
          passphrase: "x",
        });
        await writeFile(join(directory, "tls.key"), pem);
      },
    ],
    [
      "a key of another kind",
      /tls\.key cannot sign: key type ed25519/,
      async () => {
        const { privateKey } = generateKeyPairSync("ed25519");
        await writeFile(
          join(directory, "tls.key"),
          privateKey.export({ type: "pkcs8", format: "pem" }),
        );
      },
    ],
    [
      "a certificate as key",
      /tls\.key holds no PEM private key/,
      async () => writeFile(join(directory, "tls.key"), await read("tls.crt")),
    ],
    [
      "a directory in place of a file",
      /tls\.key cannot be read: it is not a regular file/,
      async () => {
        await rm(join(directory, "tls.key"));
        await mkdir(join(directory, "tls.key"));
      },
    ],
    [
      "a file far too long",
      /ca\.crt cannot be read: it is larger than/,
      async () => writeFile(join(directory, "ca.crt"), Buffer.alloc(1_048_577)),
    ],
  ])("with %s is refused", async (_case, message, spoil) => {
    await (await good()).write(directory);
    await spoil();
    await expect(load()).rejects.toThrow(message);
    await expect(load()).rejects.toMatchObject({ code: "config.invalid" });
  });

  test("never has key material in a complaint", async () => {
    const authority = await good();
    await authority.write(directory);
    await writeFile(
      join(directory, "tls.key"),
      authority.keyPem.replace(/[A-Za-z]{4}=*\n-/, "\n-"),
    );
    const secret = authority.keyPem.split("\n")[1] ?? "";
    const error: unknown = await load().catch((error: unknown) => error);
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain(secret);
  });
});

test("an authority in memory signs and leaves no file", async () => {
  const authority = await CertificateAuthority.ephemeral(Date.now());
  expect(new X509Certificate(authority.caPem).fingerprint256).toBe(authority.fingerprint);
  expect(await readdir(directory)).toEqual([]);
});
