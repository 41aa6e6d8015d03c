/** A throw-away authority for client certificates, and one of its clients. */
import forge from "node-forge";

/** PEM texts as node:tls takes them. */
export interface ClientCertificate {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

const hourMs = 3_600_000;
let serial = 1;

function certificate(
  subject: { readonly name: string; readonly publicKey: forge.pki.PublicKey },
  issuer: { readonly name: string; readonly key: forge.pki.rsa.PrivateKey },
  extensions: readonly object[],
): forge.pki.Certificate {
  const made = forge.pki.createCertificate();
  made.publicKey = subject.publicKey;
  made.serialNumber = `0${(serial += 1)}`;
  made.validity.notBefore = new Date(Date.now() - hourMs);
  made.validity.notAfter = new Date(Date.now() + hourMs);
  made.setSubject(subject.name === "" ? [] : [{ name: "commonName", value: subject.name }]);
  made.setIssuer([{ name: "commonName", value: issuer.name }]);
  made.setExtensions([...extensions]);
  made.sign(issuer.key, forge.md.sha256.create());
  return made;
}

/** A name in a subjectAltName: its type in ASN.1 (1 e-mail, 2 DNS, 6 URI, 7 IP) and its value. */
export type AltName =
  { readonly type: 1 | 2 | 6; readonly value: string } | { readonly type: 7; readonly ip: string };

/** What an authority issues, and more of it. */
export interface IssuedCertificate extends ClientCertificate {
  /** Another certificate of the same authority, with a key of its own. */
  renew(commonName: string, altNames: readonly AltName[]): ClientCertificate;
}

/** A certificate for TLS clients whose only name is this URI. */
export function clientCertificate(uri: string): ClientCertificate {
  return leafCertificate("client", [{ type: 6, value: uri }]);
}

/** A certificate for both ends of TLS with this common name and these other names. */
export function leafCertificate(
  commonName: string,
  altNames: readonly AltName[],
): IssuedCertificate {
  const authority = forge.pki.rsa.generateKeyPair(2_048);
  const issuer = { name: "clients", key: authority.privateKey };
  const made = certificate({ name: "clients", publicKey: authority.publicKey }, issuer, [
    { name: "basicConstraints", cA: true, critical: true },
    { name: "keyUsage", keyCertSign: true, critical: true },
  ]);
  const ca = forge.pki.certificateToPem(made);
  const renew = (name: string, names: readonly AltName[]): ClientCertificate => {
    const client = forge.pki.rsa.generateKeyPair(2_048);
    const leaf = certificate({ name, publicKey: client.publicKey }, issuer, [
      { name: "extKeyUsage", clientAuth: true, serverAuth: true },
      { name: "subjectAltName", altNames: names },
    ]);
    return {
      ca,
      cert: forge.pki.certificateToPem(leaf),
      key: forge.pki.privateKeyToPem(client.privateKey),
    };
  };
  return { ...renew(commonName, altNames), renew };
}

/** A certificate that nobody but its own key vouches for. */
export function selfSignedCertificate(commonName: string): ClientCertificate {
  const pair = forge.pki.rsa.generateKeyPair(2_048);
  const made = certificate(
    { name: commonName, publicKey: pair.publicKey },
    { name: commonName, key: pair.privateKey },
    [{ name: "extKeyUsage", clientAuth: true }],
  );
  const cert = forge.pki.certificateToPem(made);
  return { ca: cert, cert, key: forge.pki.privateKeyToPem(pair.privateKey) };
}
