/** The certificate that an authorization service is shown. */
import { ProxyError } from "../../errors.ts";
import {
  type ClientCertificate,
  PluginConfigError,
  type PluginDeps,
} from "../../pipeline/plugin.ts";
import { clientCertificateOf } from "../credentials/client-certificate.ts";
import { CredentialFiles } from "../credentials/credential-files.ts";
import type { ExtAuthzConfig } from "./config.ts";

/** What the service is shown of this proxy; throws ProxyError where it is not there. */
export type ShowCertificate = () => ClientCertificate | undefined;

export function certificateOf({ tls }: ExtAuthzConfig, deps: PluginDeps): ShowCertificate {
  if (tls === undefined) return () => undefined;
  const { x509Svids: svids } = deps;
  const files = new CredentialFiles(deps, "tls");
  const missing = (): never => {
    throw new ProxyError("upstream.tls", files.problem() ?? "there is no client certificate yet");
  };
  if (tls.svid) {
    if (svids === undefined) {
      const message = "needs the block spiffe: the certificate comes from the Workload API";
      throw new PluginConfigError([{ path: ["tls", "svid"], message }]);
    }
    return (): ClientCertificate => svids.current() ?? missing();
  }
  const { client_certificate_file: path = "", client_certificate_key_file: key = "" } = tls;
  const certificate = clientCertificateOf(path, key, files);
  return () => certificate.current() ?? missing();
}
