/** Tokens that are bound to a key of the client: each is only as good as the proof of the key that comes with it. */
import { durationMs } from "../../duration.ts";
import { ProofChecker, type ProofFault, ProofMemory } from "../../oauth/dpop-proof.ts";
import type { VerifiedToken } from "../../oauth/jwt-verifier.ts";
import { shown, type TokenFault } from "../../oauth/token-checks.ts";
import type { PluginDeps, RequestContext } from "../../pipeline/plugin.ts";
import type { JwtValidationConfig } from "./config.ts";
import { dpopOf } from "./dpop-config.ts";
import { ProofTargets } from "./proof-target.ts";
import { sharedIds } from "./shared-ids.ts";

/** Why a request does not prove what its token is bound to. */
export type BindingFault =
  | ProofFault
  | (Omit<TokenFault, "cause"> & {
      readonly cause: "bound_to_key" | "not_bound" | "certificate_mismatch";
    });

/** A token as it came with its request. */
export interface Presented {
  readonly text: string;
  /** The scheme of the Authorization field. */
  readonly kind: "bearer" | "dpop";
}

/** Clocks of clients differ from ours by this much at least. */
const leastLeewayMs = 10_000;

/** Checks the confirmation (`cnf`, RFC 7800) of verified tokens. */
export class BoundTokens {
  readonly #mode: JwtValidationConfig["bound_tokens"];
  readonly #isRequired: boolean;
  readonly #checker: ProofChecker;
  readonly #targets: ProofTargets;
  readonly #deps: PluginDeps;
  /** Messages whose proof was accepted with a nonce that is about to end; the agent may not get the proof. */
  readonly #stale = new WeakSet<RequestContext>();
  /** Set until the first proof that rests on the Host field. */
  #believesHost: boolean;

  constructor(config: JwtValidationConfig, deps: PluginDeps) {
    const dpop = dpopOf(config);
    this.#mode = config.bound_tokens;
    this.#isRequired = dpop.required;
    this.#deps = deps;
    this.#targets = new ProofTargets(dpop.public_urls);
    this.#believesHost = dpop.public_urls.length === 0;
    this.#checker = new ProofChecker(
      {
        algorithms: dpop.algorithms,
        lifetimeMs: durationMs(dpop.proof_lifetime),
        leewayMs: Math.max(durationMs(config.clock_skew), leastLeewayMs),
        nonceLifetimeMs: dpop.nonce ? durationMs(dpop.nonce_lifetime) : undefined,
        most: dpop.max_proofs,
        shared: sharedIds(deps, "proof", dpop.proofs_when_away),
      },
      deps.carry("dpop-proofs", () => new ProofMemory(deps.clock, deps.secret("dpop nonces"))),
      deps.clock,
    );
  }

  /** The nonce that clients are to use, where they have to. */
  get nonce(): string | undefined {
    return this.#checker.nonce;
  }

  /** The nonce that the response should carry, as that of the accepted proof is about to end. */
  nextNonce(context: RequestContext): string | undefined {
    return this.#stale.has(context) ? this.nonce : undefined;
  }

  /** What is missing or wrong; undefined where the request may use the token. */
  check(
    context: RequestContext,
    { text, kind }: Presented,
    { claims }: VerifiedToken,
  ): BindingFault | undefined | Promise<BindingFault | undefined> {
    if (this.#mode === "accept") return undefined;
    const { cnf } = claims;
    const binding = cnf === undefined ? {} : bindingOf(cnf);
    if (binding === undefined) return unproven(cnf);
    const { jkt, certificate } = binding;
    if (jkt === undefined && (this.#isRequired || kind === "dpop")) {
      const why = this.#isRequired ? " (dpop.required)" : ", under the scheme DPoP";
      return { cause: "not_bound", claim: "cnf", expected: `jkt${why}`, found: kindsOf(cnf) };
    }
    if (certificate !== undefined) {
      const shownOne = context.flow.client.tls?.certificateThumbprint;
      if (shownOne === undefined) return unproven(cnf);
      if (shownOne !== certificate) {
        const expected = "the client certificate that the token is bound to";
        return { cause: "certificate_mismatch", claim: "cnf", expected, found: "another one" };
      }
    }
    if (jkt === undefined) return undefined;
    if (kind !== "dpop") return unproven(cnf);
    const [proof, ...more] = context.headers.getAll("dpop");
    if (proof === undefined) {
      return { cause: "proof_missing", expected: "one DPoP field", found: "none" };
    }
    if (more.length > 0) {
      return { cause: "proof_malformed", expected: "one DPoP field", found: "several" };
    }
    return this.#prove(context, proof.trim(), text, jkt);
  }

  async #prove(
    context: RequestContext,
    proof: string,
    accessToken: string,
    thumbprint: string,
  ): Promise<BindingFault | undefined> {
    const fault = await this.#checker.check(proof, {
      message: context.flow,
      method: context.method,
      isTarget: (htu) => this.#targets.includes(htu, context),
      accessToken,
      thumbprint,
    });
    this.#deps.count(fault === undefined ? "proof_accepted" : "proof_refused");
    if (fault === undefined && this.#checker.isStale(proof)) this.#stale.add(context);
    if (fault === undefined && this.#believesHost) {
      this.#believesHost = false;
      const message = "DPoP proofs are compared with the client's Host field; set dpop.public_urls";
      this.#deps.log.warn({}, message);
    }
    return fault;
  }
}

interface Binding {
  readonly jkt?: string | undefined;
  readonly certificate?: string | undefined;
}

/** Undefined for a confirmation that is empty, malformed, or of a kind that nobody can prove here. */
function bindingOf(cnf: unknown): Binding | undefined {
  if (typeof cnf !== "object" || cnf === null || Array.isArray(cnf)) return undefined;
  const members = Object.entries(cnf);
  const isKnown = ([kind, value]: [string, unknown]): boolean =>
    (kind === "jkt" || kind === "x5t#S256") && typeof value === "string" && value !== "";
  if (members.length === 0 || !members.every(isKnown)) return undefined;
  const { jkt, "x5t#S256": certificate } = cnf as Record<string, string | undefined>;
  return { jkt, certificate };
}

/** The claim stands for what the caller did not show. */
function unproven(cnf: unknown): BindingFault {
  const expected = "the proof of its key with the token (bound_tokens)";
  return { cause: "bound_to_key", claim: "cnf", expected, found: kindsOf(cnf) };
}

/** Whether a DPoP proof is all that a confirmation asks for. */
export function isDpopOnly(cnf: unknown): boolean {
  const binding = bindingOf(cnf);
  return binding?.jkt !== undefined && binding.certificate === undefined;
}

function kindsOf(cnf: unknown): string {
  return shown(typeof cnf === "object" && cnf !== null ? Object.keys(cnf).join(", ") : cnf);
}
