/** A client certificate and its key, in files that are replaced while they are in use. */
import type { ClientCertificate } from "../../http/operator-fetch.ts";
import { assertPair, readCertificateChain, readPrivateKey } from "../../oauth/pem.ts";
import { Secret } from "../../secret.ts";
import type { CredentialFiles, Current } from "./credential-files.ts";

/** The keys `client_certificate_file` and `client_certificate_key_file` of a block; undefined from the certificate's end on. */
export function clientCertificateOf(
  path: string,
  keyPath: string,
  files: CredentialFiles,
): Current<ClientCertificate> {
  const key = files.checked("client_certificate_key_file", keyPath, readPrivateKey);
  const chain = files.checked("client_certificate_file", path, readCertificateChain);
  const named = { key: "client_certificate_file", path };
  const pair = files.pair(named, chain, key, (known, privateKey) => {
    assertPair(known, privateKey);
    const pem = privateKey.export({ format: "pem", type: "pkcs8" }).toString();
    return {
      certificateChain: known.pem,
      privateKey: new Secret(pem),
      endsAt: known.certificate.validToDate.getTime(),
    };
  });
  return files.lasting(pair, path, "client certificate");
}
