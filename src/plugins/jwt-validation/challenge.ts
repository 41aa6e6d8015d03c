/** The challenges of refused requests: RFC 6750 section 3, RFC 9449 sections 7.1 and 9, RFC 9728 section 5.1. */
import type { JwtValidationConfig } from "./config.ts";
import { dpopOf } from "./dpop-config.ts";
import { metadataUrlOf } from "./resource-metadata.ts";

/** The error word of a challenge, each of the scheme that knows it. */
export type ChallengeError =
  | "invalid_request"
  | "invalid_token"
  | "insufficient_scope"
  | "invalid_dpop_proof"
  | "use_dpop_nonce";

/** What a challenge says, and which scheme the client used or has to use. */
export interface ChallengeTerms {
  readonly error?: ChallengeError;
  readonly scope?: string;
  readonly description?: string;
  /** The client used DPoP, or its token needs it. */
  readonly dpop?: "also" | "only" | undefined;
}

/** Makes the fields of a refusal. */
export class Challenge {
  readonly #parameters: string;
  readonly #algorithms: string;
  /** The challenge for a client that sent no credential. */
  readonly #usual: ChallengeTerms["dpop"];
  readonly #nonce: () => string | undefined;
  /** What a client that reads the metadata should ask for at once. */
  readonly #scope: string | undefined;

  constructor(config: JwtValidationConfig, nonce: () => string | undefined) {
    const metadata = metadataUrlOf(config);
    const more = metadata === undefined ? "" : `, resource_metadata="${metadata}"`;
    this.#parameters = `realm="authbridge"${more}`;
    const dpop = dpopOf(config);
    this.#algorithms = `algs="${dpop.algorithms.join(" ")}"`;
    if (config.dpop !== undefined && config.bound_tokens === "proof") {
      this.#usual = dpop.required ? "only" : "also";
    }
    this.#nonce = nonce;
    const { protected_resource: own, required_scopes: scopes } = config;
    if (own !== undefined && scopes.length > 0) this.#scope = scopes.join(" ");
  }

  headers(terms: ChallengeTerms = {}): Readonly<Record<string, string>> {
    const dpop = terms.dpop ?? this.#usual;
    const said = wordsOf(this.#scope === undefined ? terms : { scope: this.#scope, ...terms });
    const bearer = `Bearer ${this.#parameters}${said}`;
    if (dpop === undefined) return { "WWW-Authenticate": bearer };
    const proof = `DPoP ${this.#parameters}${dpop === "only" ? said : ""}, ${this.#algorithms}`;
    const nonce = this.#nonce();
    return {
      "WWW-Authenticate": dpop === "only" ? proof : `${bearer}, ${proof}`,
      ...(nonce === undefined ? {} : { "DPoP-Nonce": nonce, "Cache-Control": "no-store" }),
    };
  }
}

function wordsOf({ error, scope, description }: ChallengeTerms): string {
  return [
    ...(error === undefined ? [] : [`, error="${error}"`]),
    ...(description === undefined ? [] : [`, error_description="${quotable(description)}"`]),
    ...(scope === undefined ? [] : [`, scope="${quotable(scope)}"`]),
  ].join("");
}

/** A quoted string of RFC 9110 section 5.6.4 without anything that would need escaping. */
function quotable(text: string): string {
  return text.replace(/[^\x20-\x7e]|["\\]/g, "");
}
