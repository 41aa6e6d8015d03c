/**
 * `tls_bridge`: opening TLS connections of the agent with certificates of our own authority.
 */
import { z } from "zod";
import { count, duration, listOf, words } from "./value-schema.ts";
import { guarded } from "../yaml/empty-values.ts";

/** One entry of `client_certificates`. */
const clientCertificate = z
  .strictObject({
    hosts: z
      .array(words())
      .min(1)
      .max(1000)
      .describe("Host patterns of the origins that are shown it, and no others."),
    cert_file: words()
      .optional()
      .describe("Certificate and its intermediates in PEM, read again when it changes."),
    key_file: words().optional().describe("Its private key in PEM, read again when it changes."),
    svid: z
      .boolean()
      .default(false)
      .describe("The X.509-SVID of the block spiffe, in place of files. Default false."),
  })
  .superRefine(({ cert_file: cert, key_file: key, svid }, context) => {
    const issue = (path: string, message: string): void =>
      context.addIssue({ code: "custom", path: [path], message });
    if (svid && (cert !== undefined || key !== undefined))
      issue("svid", "is in place of cert_file and key_file");
    if (!svid && cert === undefined) issue("cert_file", "is required, or svid: true");
    if (!svid && key === undefined) issue("key_file", "is required, or svid: true");
  });

/** The `tls_bridge` block. */
export const tlsBridgeSchema = z.strictObject({
  mode: z
    .enum(["enabled", "disabled"])
    .default("disabled")
    .describe("Turns the bridge on. Default disabled."),
  ca: z
    .enum(["file", "ephemeral"])
    .default("file")
    .describe(
      "Where the authority lives: file in ca_dir, or ephemeral, made at start and kept in memory. Default file.",
    ),
  ca_dir: z
    .string()
    .optional()
    .describe(
      "Directory of tls.crt, tls.key and ca.crt. Required when the bridge is on with ca: file.",
    ),
  generate_ca: z
    .boolean()
    .default(false)
    .describe(
      "Make an authority when a file of ca_dir is missing. A complete set is never overwritten. Default false.",
    ),
  upstream_ca_bundle: z
    .string()
    .optional()
    .describe("PEM file of authorities that are trusted for origins, besides those of the system."),
  passthrough_hosts: listOf(words()).describe(
    "Host names that are tunnelled and never opened. Default [].",
  ),
  ports: z
    .array(count(1, 65_535))
    .max(1000)
    .default([443, 8443])
    .describe(
      "Destination ports whose connections are opened. A list replaces the default [443, 8443].",
    ),
  on_failure: z
    .enum(["refuse", "tunnel"])
    .default("refuse")
    .describe(
      "What happens when a client rejects our certificate or an origin cannot be verified: refuse, or tunnel without looking inside. Default refuse.",
    ),
  client_certificates: listOf(clientCertificate).describe(
    "Certificates of our own for origins that ask for one, by host; the first entry that matches. Default [].",
  ),
  upstream_insecure_hosts: listOf(words()).describe(
    "Host names whose origin certificate is not verified. Default [].",
  ),
  upstream_insecure: z
    .literal(false, {
      error: "is for every host: name them in tls_bridge.upstream_insecure_hosts",
    })
    .optional()
    .describe("Of newer Go programs. true is refused: upstream_insecure_hosts names the hosts."),
  min_version: guarded(
    z
      .enum(["1.2", "1.3"])
      .default("1.2")
      .describe('Lowest TLS version with clients and origins, in quotes. Default "1.2".'),
  ),
  leaf_lifetime: duration({ minMs: 60_000, maxMs: 397 * 24 * 3_600_000 })
    .default("24h")
    .describe("Lifetime of a certificate that is made for a host. Default 24h."),
  key_type: z
    .enum(["ecdsa-p256", "rsa-2048"])
    .default("ecdsa-p256")
    .describe("Key of the certificates that are made. Default ecdsa-p256."),
  upstream_http2: z
    .enum(["auto", "on", "off"])
    .default("auto")
    .describe(
      "HTTP/2 with origins: auto by ALPN, on to require it, off for HTTP/1.1. Default auto.",
    ),
});
