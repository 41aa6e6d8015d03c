/** Certificates and private keys in PEM; an Error says what is wrong with a text and quotes nothing of it. */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";

const block = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/** A client's own certificate, and the text that goes into its handshakes. */
export interface CertificateChain {
  readonly certificate: X509Certificate;
  /** The certificate first, then its intermediates. */
  readonly pem: string;
}

/** Reads a certificate and what comes after it. */
export function readCertificateChain(text: string): CertificateChain {
  const blocks = text.match(block) ?? [];
  try {
    const [certificate] = blocks.map((pem) => new X509Certificate(pem));
    if (certificate !== undefined) return { certificate, pem: blocks.join("\n") };
  } catch {
    // What OpenSSL says of it tells nobody more.
  }
  throw new Error("it is not a certificate in PEM");
}

/** Reads an unencrypted private key: PKCS#8, PKCS#1 or SEC1. */
export function readPrivateKey(text: string): KeyObject {
  if (text.includes("ENCRYPTED")) throw new Error("the key is encrypted");
  try {
    return createPrivateKey(text);
  } catch {
    throw new Error("it is no private key in PEM");
  }
}

/** Throws where the certificate is of another key. */
export function assertPair({ certificate }: CertificateChain, key: KeyObject): void {
  if (!certificate.checkPrivateKey(key)) throw new Error("it is the certificate of another key");
}
