/**
 * X.509 certificates of the bridge: node-forge writes the structures, node:crypto makes keys and signs.
 *
 * The profile is RFC 5280 as the strictest common verifiers read it (OpenSSL with -x509_strict, Go, Java, Chromium).
 */
import type { KeyObject } from "node:crypto";
import { generateKeyPair, createHash, randomBytes, sign } from "node:crypto";
import { promisify } from "node:util";
import { isHostName } from "../net/client-hello.ts";
import { ProxyError } from "../errors.ts";
import { addressBytes, binary, childrenOf, contentsOf, Der, tagOf } from "./der.ts";

const generatePair = promisify(generateKeyPair);

/** Key types that the bridge makes. */
export type KeyType = "ecdsa-p256" | "rsa-2048";

/** A private key with its public half. */
export interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

/** From when to when a certificate holds. */
export interface Validity {
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** What the bridge needs to know of a certificate that node:crypto does not tell. */
export interface CertificateFacts {
  /** The subject as it is encoded; names are compared byte for byte when a chain is built. */
  readonly subjectDer: string;
  readonly subjectKeyId: string | undefined;
  readonly isAuthority: boolean;
  /** Absent when the certificate has no key usage extension. */
  readonly signsCertificates: boolean | undefined;
  /** Extended key usages as OIDs; undefined when the certificate does not restrict them. */
  readonly extendedUsages: readonly string[] | undefined;
}

const oid = {
  subjectKeyId: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  authorityKeyId: "2.5.29.35",
  extendedKeyUsage: "2.5.29.37",
  serverAuth: "1.3.6.1.5.5.7.3.1",
  rsaWithSha256: "1.2.840.113549.1.1.11",
} as const;

/** RFC 5758 section 3.2: the digest follows the curve. */
const ecdsaByCurve: Readonly<Record<string, { readonly hash: string; readonly oid: string }>> = {
  prime256v1: { hash: "sha256", oid: "1.2.840.10045.4.3.2" },
  secp384r1: { hash: "sha384", oid: "1.2.840.10045.4.3.3" },
  secp521r1: { hash: "sha512", oid: "1.2.840.10045.4.3.4" },
};

// RFC 5280 section 4.2.1.3: bit 0 digitalSignature, 2 keyEncipherment, 5 keyCertSign, 6 cRLSign.
const usageOfAuthority = { bits: "\x06", unusedBits: 1 };
const usageOfEcdsaLeaf = { bits: "\x80", unusedBits: 7 };
const usageOfRsaLeaf = { bits: "\xa0", unusedBits: 5 };
const keyCertSignBit = 0x04;

/** RFC 5280 appendix A: ub-common-name. */
const maxCommonNameLength = 64;

/** Makes a key pair without blocking the event loop. */
export async function makeKeyPair(type: KeyType): Promise<KeyPair> {
  return type === "rsa-2048"
    ? generatePair("rsa", { modulusLength: 2048 })
    : generatePair("ec", { namedCurve: "prime256v1" });
}

/** Why a key cannot sign for the bridge, or undefined when it can. */
export function unfitKeyReason(key: KeyObject): string | undefined {
  const { modulusLength = 0, namedCurve = "unknown" } = key.asymmetricKeyDetails ?? {};
  const type = key.asymmetricKeyType ?? "unknown";
  if (type === "rsa") return modulusLength >= 2048 ? undefined : "RSA keys need at least 2048 bits";
  if (type !== "ec") return `key type ${type} is not supported (RSA or ECDSA)`;
  return Object.hasOwn(ecdsaByCurve, namedCurve)
    ? undefined
    : `curve ${namedCurve} is not supported (P-256, P-384 or P-521)`;
}

/** Wraps DER as PEM. The last line is never empty: OpenSSL refuses such a block. */
export function toPem(label: string, der: Uint8Array): string {
  const lines = Buffer.from(der.buffer, der.byteOffset, der.byteLength)
    .toString("base64")
    .match(/.{1,64}/g);
  return `-----BEGIN ${label}-----\n${(lines ?? []).join("\n")}\n-----END ${label}-----\n`;
}

/** Signs certificates with one issuer's key, in the profile of this file. */
export class Issuer {
  readonly #der: Der;
  readonly #key: KeyObject;
  readonly #hash: string;
  readonly #algorithm: string;
  readonly #subjectDer: string;
  readonly #authorityKeyId: string;

  private constructor(der: Der, key: KeyObject, subjectDer: string, keyId: string) {
    const curve = ecdsaByCurve[key.asymmetricKeyDetails?.namedCurve ?? ""];
    this.#der = der;
    this.#key = key;
    this.#hash = curve?.hash ?? "sha256";
    this.#algorithm =
      curve === undefined
        ? der.sequence(der.oid(oid.rsaWithSha256), der.element(0x05, ""))
        : der.sequence(der.oid(curve.oid));
    this.#subjectDer = subjectDer;
    // RFC 5280 section 4.2.1.1: [0] IMPLICIT KeyIdentifier.
    this.#authorityKeyId = extension(
      der,
      oid.authorityKeyId,
      der.sequence(der.element(0x80, keyId)),
    );
  }

  /** An issuer for an existing certificate and its key. */
  static async of(facts: CertificateFacts, key: KeyPair): Promise<Issuer> {
    const der = await Der.load();
    const keyId = facts.subjectKeyId ?? keyIdOf(der, spkiOf(key.publicKey));
    return new Issuer(der, key.privateKey, facts.subjectDer, keyId);
  }

  /** A new self-signed authority, by default one that may sign leaves only: the issuer and its certificate in PEM. */
  static async selfSigned(
    commonName: string,
    key: KeyPair,
    validity: Validity,
    pathLength = 0,
  ): Promise<{ readonly issuer: Issuer; readonly pem: string }> {
    const der = await Der.load();
    const subject = der.commonName(commonName);
    const issuer = new Issuer(der, key.privateKey, subject, keyIdOf(der, spkiOf(key.publicKey)));
    return { issuer, pem: issuer.#authorityPem(subject, key.publicKey, validity, { pathLength }) };
  }

  /** An authority below this one. */
  issueAuthority(commonName: string, publicKey: KeyObject, validity: Validity): string {
    const subject = this.#der.commonName(commonName);
    return this.#authorityPem(subject, publicKey, validity, {
      pathLength: 0,
      authorityKeyId: this.#authorityKeyId,
    });
  }

  /** Prepares everything that leaves for one key have in common. */
  leafTemplate(publicKey: KeyObject): LeafTemplate {
    const der = this.#der;
    const spki = spkiOf(publicKey);
    const usage = publicKey.asymmetricKeyType === "rsa" ? usageOfRsaLeaf : usageOfEcdsaLeaf;
    const extensions = [
      extension(der, oid.basicConstraints, der.sequence(), true),
      extension(der, oid.keyUsage, der.bits(usage.bits, usage.unusedBits), true),
      extension(der, oid.extendedKeyUsage, der.sequence(der.oid(oid.serverAuth))),
      extension(der, oid.subjectKeyId, der.octets(keyIdOf(der, spki))),
      this.#authorityKeyId,
    ].join("");
    return {
      issue: (names, validity) => {
        const [first] = names;
        const alternatives = names.map((name) => generalName(der, name)).join("");
        const hasCommonName = first !== undefined && first.length <= maxCommonNameLength;
        const subject = der.commonName(hasCommonName ? first : undefined);
        // RFC 5280 section 4.2.1.6: critical when the subject is empty.
        const altNames = der.sequence(alternatives);
        const san = extension(der, oid.subjectAltName, altNames, !hasCommonName);
        return this.#sign(subject, binary(spki), validity, extensions + san);
      },
    };
  }

  #authorityPem(
    subject: string,
    publicKey: KeyObject,
    validity: Validity,
    place: { readonly pathLength: number; readonly authorityKeyId?: string },
  ): string {
    const { pathLength, authorityKeyId = "" } = place;
    const der = this.#der;
    const spki = spkiOf(publicKey);
    const constraints = der.sequence(der.boolean(true), der.unsigned(Uint8Array.of(pathLength)));
    const usage = der.bits(usageOfAuthority.bits, usageOfAuthority.unusedBits);
    const extensions =
      extension(der, oid.basicConstraints, constraints, true) +
      extension(der, oid.keyUsage, usage, true) +
      extension(der, oid.subjectKeyId, der.octets(keyIdOf(der, spki))) +
      authorityKeyId;
    return this.#sign(subject, binary(spki), validity, extensions);
  }

  /** RFC 5280 section 4.1: the to-be-signed part, then the algorithm, then the signature over the first. */
  #sign(subject: string, spki: string, validity: Validity, extensions: string): string {
    const der = this.#der;
    const toBeSigned = der.sequence(
      der.element(0xa0, der.unsigned(Uint8Array.of(2))),
      der.unsigned(serialNumber()),
      this.#algorithm,
      this.#subjectDer,
      der.sequence(der.time(validity.notBefore), der.time(validity.notAfter)),
      subject,
      spki,
      der.element(0xa3, der.sequence(extensions)),
    );
    const signature = sign(this.#hash, Buffer.from(toBeSigned, "latin1"), this.#key);
    const certificate = der.sequence(toBeSigned, this.#algorithm, der.bits(binary(signature)));
    return toPem("CERTIFICATE", Buffer.from(certificate, "latin1"));
  }
}

/** Issues leaves for one public key. */
export interface LeafTemplate {
  /** A server certificate in PEM for host names and IP addresses; the first is also the common name if it fits. */
  issue(names: readonly string[], validity: Validity): string;
}

/** Reads the facts of a DER certificate; throws when it is not one. */
export async function readCertificate(certificate: Uint8Array): Promise<CertificateFacts> {
  const der = await Der.load();
  const [toBeSigned] = childrenOf(der.parse(binary(certificate)));
  const fields = childrenOf(toBeSigned);
  // Version is [0] EXPLICIT and absent in version 1, which has no extensions.
  const isVersioned = tagOf(fields[0]) === 0xa0;
  const subject = fields[isVersioned ? 5 : 4];
  if (subject === undefined) throw new Error("no subject");
  const extensions = new Map<string, string>();
  const tagged = fields.find((field) => tagOf(field) === 0xa3);
  for (const item of tagged === undefined ? [] : childrenOf(childrenOf(tagged)[0])) {
    const parts = childrenOf(item);
    extensions.set(der.readOid(parts[0]), contentsOf(parts.at(-1)));
  }
  const constraints = extensions.get(oid.basicConstraints);
  const usage = extensions.get(oid.keyUsage);
  const extended = extensions.get(oid.extendedKeyUsage);
  const keyId = extensions.get(oid.subjectKeyId);
  const [flag] = constraints === undefined ? [] : childrenOf(der.parse(constraints));
  const usageBits = usage === undefined ? undefined : contentsOf(der.parse(usage)).charCodeAt(1);
  return {
    subjectDer: der.write(subject),
    subjectKeyId: keyId === undefined ? undefined : contentsOf(der.parse(keyId)),
    isAuthority: tagOf(flag) === 0x01 && contentsOf(flag) !== "\x00",
    signsCertificates: usageBits === undefined ? undefined : (usageBits & keyCertSignBit) !== 0,
    extendedUsages:
      extended === undefined
        ? undefined
        : childrenOf(der.parse(extended)).map((usage) => der.readOid(usage)),
  };
}

function extension(der: Der, id: string, value: string, isCritical = false): string {
  const critical = isCritical ? der.boolean(true) : "";
  return der.sequence(der.oid(id), critical, der.octets(value));
}

/** RFC 5280 section 4.2.1.6: [2] dNSName, [7] iPAddress. Anything that is neither never gets a certificate. */
function generalName(der: Der, name: string): string {
  const address = addressBytes(name);
  if (address !== undefined) return der.element(0x87, address);
  if (!isHostName(name)) {
    throw new ProxyError("request.malformed", "not a host name or address to certify");
  }
  return der.element(0x82, name);
}

function spkiOf(publicKey: KeyObject): Buffer {
  return publicKey.export({ type: "spki", format: "der" });
}

/** RFC 7093 section 2 method 1: the first 160 bits of SHA-256 over the key bits. */
function keyIdOf(der: Der, spki: Buffer): string {
  const [, bits] = childrenOf(der.parse(binary(spki)));
  const keyBits = Buffer.from(contentsOf(bits).slice(1), "latin1");
  return binary(createHash("sha256").update(keyBits).digest().subarray(0, 20));
}

/** 128 random bits; RFC 5280 section 4.1.2.2 wants them positive, and zero is not. */
function serialNumber(): Buffer {
  const serial = randomBytes(16);
  return serial.some((byte) => byte !== 0) ? serial : serialNumber();
}
