/** What the caller of a refused request gets, and what is logged for the operator. */
import type { Verification, VerifiedToken } from "../../oauth/jwt-verifier.ts";
import type { TokenFault } from "../../oauth/token-checks.ts";
import { type Decision, deny, type RequestContext } from "../../pipeline/plugin.ts";
import { type BindingFault, isDpopOnly, type Presented } from "./bound-tokens.ts";
import { Challenge, type ChallengeTerms } from "./challenge.ts";
import type { JwtValidationConfig } from "./config.ts";

/** A refusal with a challenge. */
export interface TokenRefusal extends ChallengeTerms {
  readonly message: string;
  readonly details?: Readonly<Record<string, string>>;
  /** For the client, in the body of the response. */
  readonly shown?: Readonly<Record<string, string>>;
}

type Why = Parameters<typeof deny>[0];

/** Error words of proofs that are not simply wrong. */
const proofErrors: Readonly<Partial<Record<BindingFault["cause"], ChallengeTerms["error"]>>> = {
  proof_nonce: "use_dpop_nonce",
  proof_key: "invalid_token",
};

/** Makes the refusals of one configuration. */
export class Refusals {
  readonly #config: JwtValidationConfig;
  readonly #challenge: Challenge;

  constructor(config: JwtValidationConfig, nonce: () => string | undefined) {
    this.#config = config;
    this.#challenge = new Challenge(config, nonce);
  }

  /** RFC 6750 section 3.1: a request without credentials gets the bare challenge, others get an error word. */
  refuse(
    context: RequestContext,
    why: Why,
    { message, details = {}, shown, ...terms }: TokenRefusal,
  ): Decision {
    return deny(
      why,
      {
        code: "auth.unauthorized",
        message,
        headers: this.#challenge.headers(terms),
        ...(shown === undefined ? {} : { details: shown }),
      },
      {
        expected_issuer: this.#config.issuer,
        ...details,
        ...(this.#config.audience_mode === "per-host"
          ? { expected_audience_host: context.host }
          : {}),
      },
    );
  }

  lacksScope(
    { token, fault }: Extract<Verification, { outcome: "insufficient_scope" }>,
    dpop: ChallengeTerms["dpop"],
  ): Decision {
    const scope = this.#config.required_scopes.join(" ");
    return deny(
      "insufficient_scope",
      {
        code: "policy.forbidden",
        message: "insufficient scope",
        headers: this.#challenge.headers({ error: "insufficient_scope", scope, dpop }),
      },
      { token_subject: token.subject, ...faultDetails(fault) },
    );
  }

  /** The issuer has said that the login of a token has ended. */
  loggedOut(context: RequestContext, { kind }: Presented, token: VerifiedToken): Decision {
    return this.refuse(
      context,
      { reason: "jwt_failed", cause: "logged_out" },
      {
        message: "token validation failed",
        error: "invalid_token",
        dpop: kind === "dpop" ? "only" : undefined,
        details: { token_subject: token.subject },
      },
    );
  }

  /** A handle cannot be kept for the other replicas. */
  unkept(token: VerifiedToken): Decision {
    return deny(
      "placeholder_not_kept",
      {
        code: "state.unavailable",
        message:
          "the handle for the token cannot be kept: the state store is not available (placeholders_when_away)",
        unavailable: true,
      },
      { token_subject: token.subject },
    );
  }

  /** Whether the login of a token has ended cannot be said. */
  unheard(token: VerifiedToken): Decision {
    return deny(
      "logins_unknown",
      {
        code: "state.unavailable",
        message:
          "it cannot be seen whether the login has ended: the state store is not available (logins_when_away)",
        unavailable: true,
      },
      { token_subject: token.subject },
    );
  }

  /** A good token came without the proof of the key that it is bound to. */
  unproven(
    context: RequestContext,
    { kind }: Presented,
    { token, fault }: { readonly token: VerifiedToken; readonly fault: BindingFault },
  ): Decision {
    const { cause } = fault;
    const details = { token_subject: token.subject, ...faultDetails(fault) };
    if (cause === "proofs_full") {
      const message = "too many DPoP proofs at once (dpop.max_proofs)";
      return deny(
        { reason: "proof_failed", cause },
        { code: "proxy.overloaded", message },
        details,
      );
    }
    if (cause === "proofs_unknown") {
      const message =
        "it cannot be seen whether the DPoP proof was used before: the state store is not available (dpop.proofs_when_away)";
      return deny(
        { reason: "proof_failed", cause },
        { code: "state.unavailable", message, unavailable: true },
        details,
      );
    }
    if (cause.startsWith("proof_")) {
      return this.refuse(
        context,
        { reason: "proof_failed", cause },
        {
          message: "DPoP proof refused",
          error: proofErrors[cause] ?? "invalid_dpop_proof",
          description: cause,
          shown: { cause },
          dpop: "only",
          details,
        },
      );
    }
    const also = isDpopOnly(token.claims["cnf"]) ? "also" : undefined;
    return this.refuse(
      context,
      { reason: "jwt_failed", cause },
      {
        message: "token validation failed",
        error: "invalid_token",
        dpop: kind === "dpop" ? "only" : also,
        details,
      },
    );
  }
}

/** The fault of a token or of a proof as facts of the record; the cause has its own place there. */
export function faultDetails({
  cause: _cause,
  ...facts
}: TokenFault | BindingFault): Readonly<Record<string, string>> {
  return facts;
}
