/**
 * `mtls`: mutual TLS between sidecars. What it is done with comes from `spiffe`.
 */
import { z } from "zod";
import { words } from "./value-schema.ts";
import { guarded } from "../yaml/empty-values.ts";

const maxEntries = 1_000;

function entries() {
  return guarded(z.array(words()).min(1).max(maxEntries).optional());
}

/** The `mtls` block; unknown keys are warnings, as the Go program ignores them. */
export const mtlsSchema = z.strictObject({
  mode: z
    .enum(["permissive", "strict"])
    .default("permissive")
    .describe(
      "permissive: the reverse proxy takes mutual TLS and plain connections, plain requests of the agent leave as they are. strict: it takes mutual TLS only, and plain requests of the agent leave over it or not at all. Default permissive.",
    ),
  allowed_spiffe_ids: entries().describe(
    "Peers that may connect to the reverse proxy: spiffe://domain (all of a trust domain), spiffe://domain/path (one), spiffe://domain/path/* (all below). Default: every peer whose trust domain has a bundle.",
  ),
  allowed_upstream_spiffe_ids: entries().describe(
    "Peers that plain requests of the agent may be sent to over mutual TLS, in the same form. Default: every peer whose trust domain has a bundle.",
  ),
  outbound_hosts: entries().describe(
    "Host patterns of the destinations that plain requests of the agent reach over mutual TLS or not at all; requests to other hosts leave as they are. Default: none in permissive, all in strict.",
  ),
});
