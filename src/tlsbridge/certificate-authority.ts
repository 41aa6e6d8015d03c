/**
 * The certificate authority whose key signs the bridge's leaves: read from PEM and checked, or made on the spot.
 */
import type { KeyObject } from "node:crypto";
import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { messageOf, ProxyError } from "../errors.ts";
import { Secret } from "../secret.ts";
import type { CertificateFacts, Validity } from "./x509.ts";
import { Issuer, makeKeyPair, readCertificate, unfitKeyReason } from "./x509.ts";

/** The common name of every authority that the bridge generates. */
export const generatedCommonName = "authbridge-tls-bridge-ca";

const dayMs = 86_400_000;
const generatedLifetimeMs = 365 * dayMs;
/** Clients whose clock is a little behind must not see a certificate from the future. */
const clockSkewMs = 60_000;
/** Nor must one that is kept for a year be of the future where the clock of this machine was ahead, and is set back. */
const generatedBeforeMs = dayMs;

const serverAuth = "1.3.6.1.5.5.7.3.1";
const anyExtendedKeyUsage = "2.5.29.37.0";

/** The three PEM texts of an authority; `names` says where they came from, for messages. */
export interface AuthorityPem {
  /** The issuing certificate, followed by the certificates between it and a root in `caPem`, if any. */
  readonly certificatePem: string;
  readonly keyPem: string;
  /** What clients trust. */
  readonly caPem: string;
  readonly names: {
    readonly certificate: string;
    readonly key: string;
    readonly ca: string;
  };
}

/** An authority that passed every check. Immutable; a rotation makes a new one. */
export class CertificateAuthority {
  readonly issuer: Issuer;
  /** SHA-256 of the issuing certificate, as `AB:CD:…`. */
  readonly fingerprint: string;
  readonly subject: string;
  readonly notBefore: Date;
  /** When the first certificate that a client needs runs out. */
  readonly notAfter: Date;
  /** Certificates that go out after a leaf: everything up to, not including, a self-signed root. */
  readonly chainPem: string;
  /** What clients have to trust. */
  readonly caPem: string;
  /** Held for as long as it signs, so that it is known for a secret of this process. */
  readonly key: Secret;

  private constructor(issuer: Issuer, chain: readonly X509Certificate[], pem: AuthorityPem) {
    const [issuing] = chain;
    if (issuing === undefined) throw new TypeError("an authority has a certificate");
    this.issuer = issuer;
    this.fingerprint = issuing.fingerprint256;
    this.subject = issuing.subject;
    this.notBefore = new Date(Math.max(...chain.map((link) => link.validFromDate.getTime())));
    this.notAfter = new Date(Math.min(...chain.map((link) => link.validToDate.getTime())));
    this.chainPem = chain
      .filter((link) => !isSelfIssued(link))
      .map((link) => link.toString())
      .join("");
    this.caPem = pem.caPem;
    this.key = new Secret(pem.keyPem);
    Object.freeze(this);
  }

  /** Reads and checks an authority; throws `config.invalid` naming the file and what is wrong with it. */
  static async fromPem(pem: AuthorityPem, nowMs: number): Promise<CertificateAuthority> {
    const chain = readChain(pem.certificatePem, pem.names.certificate);
    const anchors = readChain(pem.caPem, pem.names.ca);
    const privateKey = readKey(pem.keyPem, pem.names.key);
    const [issuing] = chain;
    if (issuing === undefined) throw invalid(pem.names.certificate, "holds no certificate");
    const facts = await factsOf(issuing, pem.names.certificate);
    checkMaySign(facts, pem.names.certificate);
    if (!issuing.checkPrivateKey(privateKey)) {
      throw invalid(pem.names.key, `is not the key of the certificate in ${pem.names.certificate}`);
    }
    const anchor = checkChain(chain, anchors, pem.names);
    for (const link of chain) checkValidity(link, pem.names.certificate, nowMs);
    checkValidity(anchor, pem.names.ca, nowMs);
    const issuer = await Issuer.of(facts, { privateKey, publicKey: createPublicKey(privateKey) });
    const links = chain.some((link) => link.fingerprint256 === anchor.fingerprint256)
      ? chain
      : [...chain, anchor];
    return new CertificateAuthority(issuer, links, pem);
  }

  /** A new authority that is kept in memory only: only clients of this process can trust it. */
  static async ephemeral(nowMs: number): Promise<CertificateAuthority> {
    return CertificateAuthority.fromPem(await generateAuthority(nowMs), nowMs);
  }
}

/** Makes a self-signed P-256 authority for one year. */
export async function generateAuthority(nowMs: number): Promise<AuthorityPem> {
  const key = await makeKeyPair("ecdsa-p256");
  const { pem } = await Issuer.selfSigned(generatedCommonName, key, {
    notBefore: new Date(nowMs - generatedBeforeMs),
    notAfter: new Date(nowMs + generatedLifetimeMs),
  });
  const names = {
    certificate: "the generated certificate",
    key: "the generated key",
    ca: "the generated ca",
  };
  return { certificatePem: pem, keyPem: keyToPem(key.privateKey), caPem: pem, names };
}

/** A private key as PKCS#8 PEM. */
export function keyToPem(key: KeyObject): string {
  return key.export({ type: "pkcs8", format: "pem" }).toString();
}

/** The validity of a leaf under this authority: never beyond the authority's own, which clients check too. */
export function leafValidity(
  authority: CertificateAuthority,
  nowMs: number,
  lifetimeMs: number,
): Validity {
  const notBefore = Math.max(nowMs - clockSkewMs, authority.notBefore.getTime());
  const notAfter = Math.min(nowMs + lifetimeMs, authority.notAfter.getTime());
  return { notBefore: new Date(notBefore), notAfter: new Date(notAfter) };
}

/** A complaint about one file of the authority. */
export function invalid(file: string, problem: string, cause?: unknown): ProxyError {
  return new ProxyError("config.invalid", `tls_bridge: ${file} ${problem}`, { cause });
}

function readChain(pem: string, file: string): readonly X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw invalid(file, "holds no PEM certificate");
  return blocks.map((block) => {
    try {
      return new X509Certificate(block);
    } catch (error) {
      throw invalid(file, "holds a certificate that cannot be read", error);
    }
  });
}

function readKey(pem: string, file: string): KeyObject {
  if (/-----BEGIN ENCRYPTED|Proc-Type: 4,ENCRYPTED/.test(pem)) {
    throw invalid(file, "is encrypted; the bridge needs the key without a passphrase");
  }
  try {
    const key = createPrivateKey(pem);
    const unfit = unfitKeyReason(key);
    if (unfit === undefined) return key;
    throw invalid(file, `cannot sign: ${unfit}`);
  } catch (error) {
    if (error instanceof ProxyError) throw error;
    // OpenSSL's text says what kind of parse failed and never holds key material.
    throw invalid(
      file,
      "holds no PEM private key (PKCS#8, PKCS#1 or SEC1) that can be read",
      error,
    );
  }
}

async function factsOf(certificate: X509Certificate, file: string): Promise<CertificateFacts> {
  try {
    return await readCertificate(certificate.raw);
  } catch (error) {
    throw invalid(file, `holds a certificate that cannot be read: ${messageOf(error)}`, error);
  }
}

function checkMaySign(facts: CertificateFacts, file: string): void {
  if (!facts.isAuthority) {
    throw invalid(file, "is not a certificate authority (basicConstraints lacks CA:TRUE)");
  }
  if (facts.signsCertificates !== true) {
    throw invalid(file, "may not sign certificates (keyUsage lacks keyCertSign)");
  }
  const usages = facts.extendedUsages;
  if (
    usages !== undefined &&
    !usages.some((use) => use === serverAuth || use === anyExtendedKeyUsage)
  ) {
    throw invalid(file, "may not issue server certificates (extendedKeyUsage lacks serverAuth)");
  }
}

/** Finds the trusted certificate that the chain ends in; without one every client would refuse every leaf. */
function checkChain(
  chain: readonly X509Certificate[],
  anchors: readonly X509Certificate[],
  names: AuthorityPem["names"],
): X509Certificate {
  for (const [index, link] of chain.entries()) {
    const anchor = anchors.find((anchor) => isSame(link, anchor) || isIssuedBy(link, anchor));
    if (anchor !== undefined) return anchor;
    const next = chain[index + 1];
    if (next !== undefined && !isIssuedBy(link, next)) {
      throw invalid(names.certificate, "holds a chain whose certificates do not follow each other");
    }
  }
  throw invalid(
    names.ca,
    `does not hold the issuer of ${names.certificate}; clients that trust it would refuse every connection`,
  );
}

function checkValidity(certificate: X509Certificate, file: string, nowMs: number): void {
  const { validFromDate, validToDate } = certificate;
  if (nowMs < validFromDate.getTime()) {
    throw invalid(file, `is not valid before ${validFromDate.toISOString()}; check the clock`);
  }
  if (nowMs >= validToDate.getTime()) {
    throw invalid(file, `expired on ${validToDate.toISOString()}; put a new one in its place`);
  }
}

function isSame(one: X509Certificate, other: X509Certificate): boolean {
  return one.fingerprint256 === other.fingerprint256;
}

function isIssuedBy(child: X509Certificate, parent: X509Certificate): boolean {
  return child.checkIssued(parent) && child.verify(parent.publicKey);
}

function isSelfIssued(certificate: X509Certificate): boolean {
  return certificate.subject === certificate.issuer;
}
