/** Certificates for origins that ask for one: whether each can be shown, and for how long. */
import { ClientCertificates } from "../../app/trust/client-certificates.ts";
import type { Config } from "../../config/presets.ts";
import { type Finding, fail, pass, skip } from "./report.ts";

const soonMs = 7 * 86_400_000;

/** One finding for each entry. */
export function examineCertificates({ tls_bridge: bridge }: Config): Finding[] {
  const entries = bridge.client_certificates;
  const now = Date.now();
  const certificates = new ClientCertificates(entries, {
    x509: undefined,
    now: () => now,
    onProblem: () => undefined,
  });
  return [...certificates].map((certificate, index) => {
    const { svid, cert_file: path = "" } = entries[index] ?? {};
    if (svid === true) return skip(`${certificate.key} is the X.509-SVID, which pipeline looks at`);
    const current = certificate.current();
    if (current === undefined)
      return fail(
        `${certificate.key}: ${certificate.problem()}`,
        "correct cert_file and key_file: until then requests to its hosts are refused",
      );
    const expires = new Date(current.expiresAt).toISOString();
    const facts = `${path} can be shown, expires ${expires}`;
    return current.expiresAt - now < soonMs
      ? fail(facts, "it runs out within 7 days: put a new one in its place")
      : pass(facts);
  });
}
