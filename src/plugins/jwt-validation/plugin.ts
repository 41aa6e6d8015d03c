/** jwt-validation: lets a request in only with a bearer token of the configured issuer. */
import { hash } from "node:crypto";
import { durationMs } from "../../duration.ts";
import { type BypassPaths, compileBypassPaths } from "../../pattern/path-pattern.ts";
import type { JwksSource, KeyFetcher } from "../../oauth/jwks.ts";
import { isOf, issuedAtOf, ownerOf, type TokenOwner } from "../../oauth/logout-token.ts";
import { compactJws } from "../../oauth/jwt-signature.ts";
import type { JwtVerifier, Verification, VerifiedToken } from "../../oauth/jwt-verifier.ts";
import {
  allow,
  type Decision,
  deny,
  type Identity,
  type Logout,
  type LogoutReading,
  modify,
  type Plugin,
  PluginConfigError,
  type PluginDeps,
  type RequestContext,
  exempt,
} from "../../pipeline/plugin.ts";
import { Audiences } from "./audiences.ts";
import { actorsOf } from "../../oauth/actor-chain.ts";
import { readToken } from "../credentials/bearer.ts";
import { type BindingFault, BoundTokens, type Presented } from "./bound-tokens.ts";
import { Cors, isPreflight } from "./cors.ts";
import { ResourceMetadata } from "./resource-metadata.ts";
import { faultDetails, Refusals } from "./refusals.ts";
import { Logins } from "./logins.ts";
import { introspectionSecret, type OpaqueTokens, opaqueTokensOf } from "./opaque-tokens.ts";
import { trustDomainOfIssuer } from "../../oauth/token-checks.ts";
import { keyCallOf } from "./key-call.ts";
import { keySource, sharedCall } from "./key-sources.ts";
import { keysOf, verifierOf } from "./verifier.ts";
import { FieldNames } from "../../http/field-names.ts";
import { jwtValidationConfig, type JwtValidationConfig } from "./config.ts";
import { askedOriginsOf } from "./asked-origins.ts";
import { keyLocationOf } from "./key-location.ts";
import { unusedIntrospectionKeys } from "./introspection-config.ts";
import { placeholderShownLength } from "../credentials/placeholder.ts";
import { type PlacedToken, Placeholders } from "../credentials/shared-placeholders.ts";
import { type SecretSet, sourceAt } from "../credentials/secret-set.ts";
import { defineSecretUser } from "../credentials/secret-users.ts";

/** The definition that a pipeline names. */
export const jwtValidation = defineSecretUser<JwtValidationConfig>({
  name: "jwt-validation",
  description: "Verifies the caller's bearer token and records who the caller is",
  config: jwtValidationConfig,
  authenticates: true,
  origins: askedOriginsOf,
  sources: ({ introspection }) =>
    sourceAt(introspectionSecret, introspection?.identity.client_secret),
  unused: unusedIntrospectionKeys,
  create: (config, deps, secrets) => new JwtValidation(config, deps, secrets),
});

class JwtValidation implements Plugin {
  readonly #config: JwtValidationConfig;
  readonly #deps: PluginDeps;
  readonly #keys: JwksSource;
  readonly #fetcher: KeyFetcher;
  readonly #verifier: JwtVerifier;
  readonly #opaque: OpaqueTokens | undefined;
  readonly #audiences: Audiences;
  readonly #logins: Logins | undefined;
  readonly #bypass: BypassPaths;
  readonly #bound: BoundTokens;
  readonly #refusals: Refusals;
  readonly #identityFields: FieldNames;
  readonly #cors: Cors | undefined;
  readonly #metadata: ResourceMetadata | undefined;
  readonly #placeholders: Placeholders | undefined;
  readonly #placeholderMs: number;
  readonly #admissions = new WeakMap<VerifiedToken, Admission>();

  constructor(config: JwtValidationConfig, deps: PluginDeps, secrets: SecretSet) {
    this.#config = config;
    this.#deps = deps;
    const location = keyLocationOf(config);
    const place = hash("sha256", JSON.stringify(location), "base64url");
    const isBundle = trustDomainOfIssuer(location.url) !== undefined;
    if (isBundle && deps.jwtBundles === undefined) {
      const message =
        "needs the block spiffe: the keys of a trust domain come from the Workload API";
      throw new PluginConfigError([{ path: ["issuer"], message }]);
    }
    // The agent says at once what has changed, and asking costs nothing.
    const refresh = isBundle ? { refreshMs: 1_000 } : {};
    this.#keys = deps.carry(`jwks:${place}`, () =>
      keySource(deps, place, { location, ...refresh }),
    );
    this.#fetcher = {
      call: sharedCall(deps, keyCallOf(deps)),
      onFetch: (problem) => {
        deps.count(problem === undefined ? "jwks_fetched" : "jwks_fetch_failed");
        if (problem !== undefined) deps.log.warn({ problem }, "issuer keys not fetched");
      },
    };
    this.#verifier = verifierOf(config, deps, this.#keys, this.#fetcher);
    this.#opaque = opaqueTokensOf(config, deps, secrets);
    this.#audiences = new Audiences(config, deps);
    if (config.backchannel_logout) {
      const keys = keysOf(this.#keys, this.#fetcher);
      this.#logins = new Logins(config, deps, keys, this.#audiences);
    }
    this.#bypass = compileBypassPaths(config.bypass_paths);
    this.#bound = new BoundTokens(config, deps);
    this.#refusals = new Refusals(config, () => this.#bound.nonce);
    this.#identityFields = new FieldNames(config.identity_headers);
    this.#cors = config.cors === undefined ? undefined : new Cors(config.cors);
    this.#metadata = ResourceMetadata.of(config);
    this.#placeholders = config.placeholder_mode ? new Placeholders(deps) : undefined;
    this.#placeholderMs = durationMs(config.placeholder_ttl);
  }

  /** The first request should not pay for the key set; an issuer that is down must not stop the start. */
  async start(): Promise<void> {
    this.#keys.warm(this.#fetcher);
    await this.#logins?.start();
    await this.#placeholders?.start();
  }

  /** Asked by probes, which are the only traffic of a process that is not ready: they cause the next attempt. */
  ready(): true | string {
    this.#keys.warm(this.#fetcher);
    const audiences = this.#audiences.ready();
    if (audiences !== true) return audiences;
    const opaque = this.#opaque?.ready() ?? true;
    if (opaque !== true || !this.#config.wait_for_keys) return opaque;
    return this.#keys.hasKeys ? true : this.#keys.problem;
  }

  readLogout(token: string): Promise<LogoutReading> | undefined {
    return this.#logins?.read(token);
  }

  onLogout(logout: Logout): number {
    this.#logins?.end(logout);
    const isMeant = (owner: TokenOwner): boolean => isOf(owner, logout);
    const jwts = this.#verifier.forget(isMeant);
    const opaque = this.#opaque?.verifier.forget(isMeant) ?? [];
    for (const digest of [...jwts, ...opaque]) logout.tokens.add(digest);
    return jwts.length + opaque.length + (this.#placeholders?.forget(isMeant) ?? 0);
  }

  onRequest(context: RequestContext): Decision | Promise<Decision> {
    this.#identityFields.removeFrom(context.headers);
    const early = this.#cors?.judge(context) ?? this.#metadata?.answer(context);
    if (early !== undefined) return early;
    if (this.#bypass.matches(context.path)) return exempt("path_bypass");
    if (this.#config.cors_preflight === "pass" && isPreflight(context))
      return exempt("cors_preflight");
    const presented = readToken(context.headers);
    if (presented.kind === "absent") {
      return this.#refusals.refuse(context, "no_header", {
        message: "missing Authorization header",
      });
    }
    if (presented.kind !== "bearer" && presented.kind !== "dpop") {
      const message = "invalid Authorization header format";
      return this.#refusals.refuse(context, "malformed_header", {
        message,
        error: "invalid_request",
      });
    }
    const audiences = this.#audiences.of(context);
    if (audiences === undefined) {
      return deny("validator_missing", {
        code: "upstream.unreachable",
        message: "identity not yet configured (credentials pending)",
      });
    }
    const { token: text, kind } = presented;
    const opaque = this.#opaque?.verifier;
    const verifier = opaque === undefined || compactJws.test(text) ? this.#verifier : opaque;
    const verification = verifier.verify(text, audiences);
    if (verification instanceof Promise) {
      return verification.then((done) => this.#decide(context, { text, kind }, audiences, done));
    }
    this.#deps.count("verified_from_cache");
    return this.#decide(context, { text, kind }, audiences, verification);
  }

  /** A nonce that is about to end is replaced in the response, so that the next request need not ask for one. */
  wantsAnswer(context: RequestContext): boolean {
    return this.#cors?.isOwn === true || this.#bound.nextNonce(context) !== undefined;
  }

  onResponse(context: RequestContext): undefined {
    const { response } = context;
    if (this.#cors?.isOwn === true && response !== undefined)
      this.#cors.apply(context, response.headers);
    const nonce = this.#bound.nextNonce(context);
    if (nonce !== undefined) response?.headers.set("DPoP-Nonce", nonce);
    return undefined;
  }

  #decide(
    context: RequestContext,
    presented: Presented,
    audiences: readonly string[],
    verification: Verification,
  ): Decision | Promise<Decision> {
    const { outcome } = verification;
    const dpop = presented.kind === "dpop" ? "only" : undefined;
    if (outcome === "verified") return this.#bind(context, presented, verification.token);
    if (outcome === "insufficient_scope") return this.#refusals.lacksScope(verification, dpop);
    if (outcome !== "invalid") {
      return deny(
        { reason: "validator_missing", cause: outcome },
        { code: "upstream.unreachable", message: "token validation is not available" },
        { problem: verification.reason },
      );
    }
    const message = "token validation failed";
    const { cause } = verification.fault;
    return this.#refusals.refuse(
      context,
      { reason: "jwt_failed", cause },
      {
        message,
        error: "invalid_token",
        dpop,
        details: { ...faultDetails(verification.fault), expected_audiences: audiences.join(",") },
      },
    );
  }

  /** Lets a token in only with the proof of the key that it is bound to. */
  #bind(
    context: RequestContext,
    presented: Presented,
    token: VerifiedToken,
  ): Decision | Promise<Decision> {
    // Of an opaque token the authorization server was asked after the logout, or is asked now.
    if (this.#logins?.hasEnded(token) === true && compactJws.test(presented.text)) {
      return this.#refusals.loggedOut(context, presented, token);
    }
    if (this.#logins?.unheard !== undefined) return this.#refusals.unheard(token);
    const follow = (fault: BindingFault | undefined): Decision | Promise<Decision> =>
      fault === undefined
        ? this.#admit(context, presented.text, token)
        : this.#refusals.unproven(context, presented, { token, fault });
    const fault = this.#bound.check(context, presented, token);
    return fault instanceof Promise ? fault.then(follow) : follow(fault);
  }

  #admit(
    context: RequestContext,
    text: string,
    token: VerifiedToken,
  ): Decision | Promise<Decision> {
    // A verified token is one object for as long as it is remembered: what it says is worded once.
    let admission = this.#admissions.get(token);
    if (admission === undefined) {
      admission = admissionOf(token);
      this.#admissions.set(token, admission);
    }
    context.setIdentity(admission.identity);
    if (this.#placeholders === undefined) return admission.decision;
    return this.#replace(context, text, token, this.#placeholders);
  }

  /** Puts a handle into the place of the token. */
  #replace(
    context: RequestContext,
    text: string,
    token: VerifiedToken,
    placeholders: Placeholders,
  ): Decision | Promise<Decision> {
    const { claims, expiresAt } = token;
    const now = this.#deps.clock.now();
    // As long as the verifier takes the token.
    const end =
      (expiresAt ?? Number.POSITIVE_INFINITY) * 1000 + durationMs(this.#config.clock_skew);
    const placed: PlacedToken = {
      token: text,
      lifetimeMs: Math.min(this.#placeholderMs, end - now),
      issuer: this.#config.issuer,
      owner: ownerOf(claims),
      issuedAt: issuedAtOf(claims),
    };
    const attach = (handle: string): Decision => {
      context.headers.set("Authorization", `Bearer ${handle}`);
      // A proof of the token that the agent does not get.
      context.headers.delete("DPoP");
      return modify("placeholder_minted", {
        ...admissionOf(token).decision.details,
        placeholder: handle.slice(0, placeholderShownLength),
      });
    };
    const away = async (): Promise<Decision> => {
      this.#deps.count("state_away");
      if (this.#config.placeholders_when_away === "refuse") return this.#refusals.unkept(token);
      return attach(await placeholders.mintHere(placed));
    };
    try {
      const minted = placeholders.mint(placed);
      return minted instanceof Promise ? minted.then(attach, away) : attach(minted);
    } catch {
      return away();
    }
  }
}

/** What admitting a token sets and records. */
interface Admission {
  readonly identity: Identity;
  readonly decision: Decision;
}

function admissionOf(token: VerifiedToken): Admission {
  const { subject, clientId, scopes, claims, expiresAt } = token;
  const actors = actorsOf(claims["act"]) ?? [];
  return Object.freeze({
    identity: Object.freeze({ subject, clientId, scopes, claims, expiresAt }),
    decision: allow("authorized", {
      token_subject: subject,
      token_audience: token.audience.join(","),
      token_scopes: scopes.join(","),
      ...(actors.length === 0 ? {} : { token_actors: actors.join(", ") }),
    }),
  });
}
