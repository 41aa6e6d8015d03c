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
  made.setSubject([{ name: "commonName", value: subject.name }]);
  made.setIssuer([{ name: "commonName", value: issuer.name }]);
  made.setExtensions([...extensions]);
  made.sign(issuer.key, forge.md.sha256.create());
  return made;
}

/** A certificate for TLS clients whose only name is this URI. */
export function clientCertificate(uri: string): ClientCertificate {
  const authority = forge.pki.rsa.generateKeyPair(2_048);
  const client = forge.pki.rsa.generateKeyPair(2_048);
  const issuer = { name: "clients", key: authority.privateKey };
  const ca = certificate({ name: "clients", publicKey: authority.publicKey }, issuer, [
    { name: "basicConstraints", cA: true, critical: true },
    { name: "keyUsage", keyCertSign: true, critical: true },
  ]);
  const leaf = certificate({ name: "client", publicKey: client.publicKey }, issuer, [
    { name: "extKeyUsage", clientAuth: true },
    { name: "subjectAltName", altNames: [{ type: 6, value: uri }] },
  ]);
  return {
    ca: forge.pki.certificateToPem(ca),
    cert: forge.pki.certificateToPem(leaf),
    key: forge.pki.privateKeyToPem(client.privateKey),
  };
}
