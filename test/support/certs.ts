/**
 * Throw-away certificates for local TLS origins: an authority, servers below it, and the ways in which they go wrong.
 */
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { X509Certificate } from "node:crypto";
import { keyToPem } from "../../src/tlsbridge/certificate-authority.ts";
import type { KeyPair, KeyType } from "../../src/tlsbridge/x509.ts";
import { Issuer, makeKeyPair, readCertificate } from "../../src/tlsbridge/x509.ts";

const dayMs = 86_400_000;

/** A server's certificate (with the chain up to its root) and key, as node:tls takes them. */
export interface ServerCertificate {
  readonly cert: string;
  readonly key: string;
}

/** What to make of a server certificate; by default it is valid now and for a day. */
export interface ServerOptions {
  readonly keyType?: KeyType;
  readonly notBefore?: Date;
  readonly notAfter?: Date;
}

/** A throw-away certificate authority. */
export class TestAuthority {
  /** What a client has to trust. */
  readonly caPem: string;
  /** The issuing certificate; differs from `caPem` for an intermediate. */
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly key: KeyPair;
  readonly #issuer: Issuer;
  readonly #chainPem: string;

  private constructor(
    issuer: Issuer,
    key: KeyPair,
    pem: { readonly certificate: string; readonly ca: string; readonly chain: string },
  ) {
    this.#issuer = issuer;
    this.key = key;
    this.certificatePem = pem.certificate;
    this.caPem = pem.ca;
    this.keyPem = keyToPem(key.privateKey);
    this.#chainPem = pem.chain;
  }

  static async create(
    commonName = "test root",
    keyType: KeyType = "ecdsa-p256",
    validity = validNow(),
  ): Promise<TestAuthority> {
    const key = await makeKeyPair(keyType);
    const { issuer, pem } = await Issuer.selfSigned(commonName, key, validity, 1);
    return new TestAuthority(issuer, key, { certificate: pem, ca: pem, chain: "" });
  }

  /** An authority below this one, whose servers send it along. */
  async intermediate(
    commonName = "test intermediate",
    keyType: KeyType = "ecdsa-p256",
    validity = validNow(),
  ): Promise<TestAuthority> {
    const key = await makeKeyPair(keyType);
    const certificate = this.#issuer.issueAuthority(commonName, key.publicKey, validity);
    const facts = await readCertificate(new X509Certificate(certificate).raw);
    const chain = certificate + this.#chainPem;
    const issuer = await Issuer.of(facts, key);
    return new TestAuthority(issuer, key, { certificate: chain, ca: this.caPem, chain });
  }

  /** A certificate for a server with these host names and addresses. */
  async server(
    names: readonly string[] = ["localhost", "127.0.0.1", "::1"],
    options: ServerOptions = {},
  ): Promise<ServerCertificate> {
    const key = await makeKeyPair(options.keyType ?? "ecdsa-p256");
    const template = this.#issuer.leafTemplate(key.publicKey);
    const { notBefore, notAfter } = { ...validNow(), ...options };
    const cert = template.issue(names, { notBefore, notAfter });
    return { cert: cert + this.#chainPem, key: keyToPem(key.privateKey) };
  }

  /** Writes `tls.crt`, `tls.key` and `ca.crt`, as a Secret holds them, and returns the directory. */
  async write(directory?: string): Promise<string> {
    const into = directory ?? (await temporaryDirectory());
    await writeFile(join(into, "tls.crt"), this.certificatePem);
    await writeFile(join(into, "tls.key"), this.keyPem, { mode: 0o600 });
    await writeFile(join(into, "ca.crt"), this.caPem);
    return into;
  }
}

/** Dates around now. */
export function validNow(): { readonly notBefore: Date; readonly notAfter: Date } {
  const now = Date.now();
  return { notBefore: new Date(now - 60_000), notAfter: new Date(now + dayMs) };
}

/** Dates that are over. */
export function expired(): { readonly notBefore: Date; readonly notAfter: Date } {
  const now = Date.now();
  return { notBefore: new Date(now - 2 * dayMs), notAfter: new Date(now - dayMs) };
}

/** A new directory for one test's files. */
export function temporaryDirectory(): Promise<string> {
  return mkdtemp(join(tmpdir(), "authbridge-certs-"));
}
