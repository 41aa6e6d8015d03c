/** The keys of `dpop`: how proofs of possession (RFC 9449) are checked. */
import { z } from "zod";
import { signatureAlgorithms } from "../../oauth/token-checks.ts";
import { guarded } from "../../yaml/empty-values.ts";
import { duration, serviceUrl } from "../config-values.ts";
import { readWhere } from "../../yaml/idle-keys.ts";

/** The schema of `dpop`. */
export const dpopConfig = z
  .strictObject({
    required: z
      .boolean()
      .default(false)
      .describe("Take no token but those that are bound to a key with DPoP."),
    algorithms: z
      .array(z.enum(signatureAlgorithms))
      .min(1)
      .default([...signatureAlgorithms])
      .describe("Signature algorithms of proofs that are accepted."),
    proof_lifetime: readWhere(
      duration(1_000)
        .default("1m")
        .describe(
          "How old a proof may be by its `iat`. Where a nonce is asked for, that counts instead.",
        ),
      "with nonce: true, which counts in its place",
      ({ nonce }) => nonce !== true,
    ),
    nonce: z
      .boolean()
      .default(false)
      .describe(
        "Ask clients for a nonce of this proxy in their proofs (RFC 9449 section 9): their clocks then do not matter, and a proof is good for one replica only, which answers the first request with 401 and the nonce.",
      ),
    nonce_lifetime: readWhere(
      duration(1_000)
        .default("2m")
        .describe("How long a nonce is good at least; twice that at most."),
      "without nonce: true",
      ({ nonce }) => nonce === true,
    ),
    public_urls: guarded(
      z
        .array(serviceUrl())
        .max(100)
        .default([])
        .describe(
          "Addresses by which clients reach the agent, such as that of an ingress: `htu` must be one of them followed by the path. Without it, `htu` must be the scheme of the connection and the request's Host field, which the client writes.",
        ),
    ),
    max_proofs: z
      .int()
      .min(1)
      .max(10_000_000)
      .default(100_000)
      .describe(
        "Proofs that are remembered so that none is taken twice. Where there is no room for another, it is answered 503.",
      ),
    proofs_when_away: z
      .enum(["refuse", "local"])
      .default("refuse")
      .describe(
        "What happens to proofs while the store of `state`, in which they are used up for all replicas, is away. local: what this process remembers counts.",
      ),
  })
  .describe("How proofs of DPoP (RFC 9449) are checked.");

type DpopConfig = z.output<typeof dpopConfig>;

/** How proofs are checked, by the file or as it is without a word of it. */
export function dpopOf({ dpop }: { readonly dpop?: DpopConfig | undefined }): DpopConfig {
  return dpop ?? dpopConfig.parse({});
}
