/** Makes an X.509-SVID of what a Workload API or files hold, or says why it is none. */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { messageOf } from "../errors.ts";
import { Secret } from "../secret.ts";
import { splitCertificates, spiffeIdOf } from "./certificate.ts";
import type { X509Svid } from "./x509-source.ts";

/** What arrives. */
export interface RawSvid {
  /** What the sender says that it is; compared with the certificate where there is one. */
  readonly spiffeId?: string;
  /** Certificates in DER, one behind the other, the leaf first. */
  readonly certificates: Buffer;
  /** PKCS#8 in DER. */
  readonly privateKey: Buffer;
}

/** A chain that is longer is no chain of a workload. */
const maxCertificates = 16;
/** Bundles grow while authorities rotate; the largest sites have a handful. */
const maxAuthorities = 256;

/** The checked SVID, or in a string why it cannot be used at `now` (milliseconds since the epoch). */
export function readSvid(raw: RawSvid, now: number): X509Svid | string {
  let chain: Buffer[];
  let certificates: X509Certificate[];
  let key: KeyObject;
  try {
    chain = splitCertificates(raw.certificates);
    if (chain.length > maxCertificates)
      return `its chain has more than ${maxCertificates} certificates`;
    certificates = chain.map((der) => new X509Certificate(der));
  } catch (error) {
    return `its certificates cannot be read: ${messageOf(error)}`;
  }
  try {
    key = createPrivateKey({ key: raw.privateKey, format: "der", type: "pkcs8" });
  } catch {
    // What the parser says could quote the key.
    return "its private key is not PKCS#8";
  }
  const [leaf] = certificates;
  const [leafDer] = chain;
  if (leaf === undefined || leafDer === undefined) return "it has no certificate";
  const id = spiffeIdOf(leafDer);
  if (typeof id === "string") return id;
  if (raw.spiffeId !== undefined && raw.spiffeId !== id.text)
    return `its certificate is that of ${id.text}, not of ${shown(raw.spiffeId)}`;
  if (!leaf.checkPrivateKey(key)) return "its private key does not belong to its certificate";
  const expiresAt = Date.parse(leaf.validTo);
  const notBefore = Date.parse(leaf.validFrom);
  if (!(now < expiresAt)) return `it has expired at ${leaf.validTo}`;
  if (certificates.slice(1).some(({ ca }) => !ca))
    return "an intermediate certificate is not that of an authority";
  return {
    spiffeId: id.text,
    trustDomain: id.trustDomain,
    certificateChain: certificates.map((one) => one.toString()).join(""),
    certificates: chain,
    privateKey: new Secret(key.export({ type: "pkcs8", format: "pem" }).toString()),
    notBefore,
    expiresAt,
  };
}

/** The authorities of one trust domain in PEM, each once, or in a string why the bundle cannot be used. */
export function readBundle(bytes: Buffer): readonly string[] | string {
  try {
    const authorities = splitCertificates(bytes);
    if (authorities.length > maxAuthorities)
      return `it has more than ${maxAuthorities} certificates`;
    const pem = authorities.map((der) => new X509Certificate(der).toString());
    return pem.length === 0 ? "it is empty" : [...new Set(pem)];
  } catch (error) {
    return `it cannot be read: ${messageOf(error)}`;
  }
}

/** Whether an authority of the bundle has signed the SVID, or an intermediate of it. Times are not looked at. */
export function leadsTo(svid: X509Svid, bundle: readonly string[]): boolean {
  const authorities = bundle.map((pem) => new X509Certificate(pem));
  const [leaf, ...intermediates] = svid.certificates.map((der) => new X509Certificate(der));
  let current = leaf;
  while (current !== undefined) {
    const signed = current;
    if (authorities.some((authority) => hasSigned(authority, signed))) return true;
    const index = intermediates.findIndex((one) => hasSigned(one, signed));
    [current] = index === -1 ? [] : intermediates.splice(index, 1);
  }
  return false;
}

/** Whether the one certificate is that of the other's issuer. Times are not looked at. */
export function hasSigned(authority: X509Certificate, certificate: X509Certificate): boolean {
  return certificate.checkIssued(authority) && certificate.verify(authority.publicKey);
}

/** A remote text, shortened for a log line. */
export function shown(text: string): string {
  const printable = text.replace(/[^\x20-\x7e]/g, "?");
  return printable.length > 200 ? `${printable.slice(0, 200)}…` : printable;
}
