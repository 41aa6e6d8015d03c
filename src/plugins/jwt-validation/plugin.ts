/** jwt-validation: lets a request in only with a bearer token of the configured issuer. */
import { hash } from "node:crypto";
import { durationMs } from "../../duration.ts";
import { type BypassPaths, compileBypassPaths } from "../../pattern/path-pattern.ts";
import { JwksSource, type KeyFetcher } from "../../oauth/jwks.ts";
import { JwtVerifier, type Verification, type VerifiedToken } from "../../oauth/jwt-verifier.ts";
import type { TokenFault } from "../../oauth/token-checks.ts";
import {
  allow,
  type Decision,
  definePlugin,
  deny,
  type Identity,
  modify,
  type Plugin,
  type PluginDeps,
  type RequestContext,
  exempt,
} from "../../pipeline/plugin.ts";
import { Audiences } from "./audiences.ts";
import { readBearer } from "../credentials/bearer.ts";
import { originOf } from "../config-values.ts";
import { FieldNames } from "../../http/field-names.ts";
import { jwtValidationConfig, type JwtValidationConfig, keyLocationOf } from "./config.ts";
import {
  placeholderShownLength,
  type PlaceholderStore,
  sharedPlaceholders,
} from "../credentials/placeholder.ts";

/** The definition that a pipeline names. */
export const jwtValidation = definePlugin<JwtValidationConfig>({
  name: "jwt-validation",
  description: "Verifies the caller's bearer token and records who the caller is",
  config: jwtValidationConfig,
  authenticates: true,
  origins: (config) => {
    const location = keyLocationOf(config);
    return [originOf(location.url)];
  },
  create: (config, deps) => new JwtValidation(config, deps),
});

class JwtValidation implements Plugin {
  readonly #config: JwtValidationConfig;
  readonly #deps: PluginDeps;
  readonly #keys: JwksSource;
  readonly #fetcher: KeyFetcher;
  readonly #verifier: JwtVerifier;
  readonly #audiences: Audiences;
  readonly #bypass: BypassPaths;
  readonly #challenge: string;
  readonly #identityFields: FieldNames;
  readonly #placeholders: PlaceholderStore | undefined;
  readonly #placeholderMs: number;
  readonly #admissions = new WeakMap<VerifiedToken, Admission>();

  constructor(config: JwtValidationConfig, deps: PluginDeps) {
    this.#config = config;
    this.#deps = deps;
    const location = keyLocationOf(config);
    const place = hash("sha256", JSON.stringify(location), "base64url");
    this.#keys = deps.carry(`jwks:${place}`, () => new JwksSource({ location, clock: deps.clock }));
    this.#fetcher = {
      call: deps.fetch,
      onFetch: (problem) => {
        deps.count(problem === undefined ? "jwks_fetched" : "jwks_fetch_failed");
        if (problem !== undefined) deps.log.warn({ problem }, "issuer keys not fetched");
      },
    };
    this.#verifier = verifierOf(config, deps, this.#keys, this.#fetcher);
    this.#audiences = new Audiences(config, deps);
    this.#bypass = compileBypassPaths(config.bypass_paths);
    const { resource_metadata: metadata } = config;
    const more = metadata === undefined ? "" : `, resource_metadata="${metadata}"`;
    this.#challenge = `Bearer realm="authbridge"${more}`;
    this.#identityFields = new FieldNames(config.identity_headers);
    this.#placeholders = config.placeholder_mode ? sharedPlaceholders(deps) : undefined;
    this.#placeholderMs = durationMs(config.placeholder_ttl);
  }

  /** The first request should not pay for the key set; an issuer that is down must not stop the start. */
  start(): Promise<void> {
    this.#keys.warm(this.#fetcher);
    return Promise.resolve();
  }

  /** Asked by probes, which are the only traffic of a process that is not ready: they cause the next attempt. */
  ready(): true | string {
    this.#keys.warm(this.#fetcher);
    const audiences = this.#audiences.ready();
    if (audiences !== true || !this.#config.wait_for_keys) return audiences;
    return this.#keys.hasKeys ? true : this.#keys.problem;
  }

  onRequest(context: RequestContext): Decision | Promise<Decision> {
    this.#identityFields.removeFrom(context.headers);
    if (this.#bypass.matches(context.path)) return exempt("path_bypass");
    if (this.#config.cors_preflight === "pass" && isPreflight(context))
      return exempt("cors_preflight");
    const bearer = readBearer(context.headers);
    if (bearer.kind === "absent") {
      return this.#refuse(context, "no_header", { message: "missing Authorization header" });
    }
    if (bearer.kind !== "bearer") {
      const message = "invalid Authorization header format";
      return this.#refuse(context, "malformed_header", { message, error: "invalid_request" });
    }
    const audiences = this.#audiences.of(context);
    if (audiences === undefined) {
      return deny("validator_missing", {
        code: "upstream.unreachable",
        message: "identity not yet configured (credentials pending)",
      });
    }
    const verification = this.#verifier.verify(bearer.token, audiences);
    if (verification instanceof Promise) {
      return verification.then((done) => this.#decide(context, bearer.token, audiences, done));
    }
    this.#deps.count("verified_from_cache");
    return this.#decide(context, bearer.token, audiences, verification);
  }

  #decide(
    context: RequestContext,
    text: string,
    audiences: readonly string[],
    verification: Verification,
  ): Decision {
    const { outcome } = verification;
    if (outcome === "verified") return this.#admit(context, text, verification.token);
    if (outcome === "insufficient_scope") return this.#lacksScope(verification);
    if (outcome === "keys_unavailable") {
      return deny(
        { reason: "validator_missing", cause: outcome },
        { code: "upstream.unreachable", message: "token validation is not available" },
        { problem: verification.reason },
      );
    }
    const message = "token validation failed";
    const { cause } = verification.fault;
    return this.#refuse(
      context,
      { reason: "jwt_failed", cause },
      {
        message,
        error: "invalid_token",
        details: { ...faultDetails(verification.fault), expected_audiences: audiences.join(",") },
      },
    );
  }

  #lacksScope({
    token,
    fault,
  }: Extract<Verification, { outcome: "insufficient_scope" }>): Decision {
    // A quoted string of RFC 9110 section 5.6.4 without anything that would need escaping.
    const scope = this.#config.required_scopes.join(" ").replace(/[^\x20-\x7e]|["\\]/g, "");
    return deny(
      "insufficient_scope",
      {
        code: "policy.forbidden",
        message: "insufficient scope",
        headers: {
          "WWW-Authenticate": `${this.#challenge}, error="insufficient_scope", scope="${scope}"`,
        },
      },
      { token_subject: token.subject, ...faultDetails(fault) },
    );
  }

  #admit(context: RequestContext, text: string, token: VerifiedToken): Decision {
    // A verified token is one object for as long as it is remembered: what it says is worded once.
    let admission = this.#admissions.get(token);
    if (admission === undefined) {
      admission = admissionOf(token);
      this.#admissions.set(token, admission);
    }
    context.setIdentity(admission.identity);
    if (this.#placeholders === undefined) return admission.decision;
    const { expiresAt } = token;
    const now = this.#deps.clock.now();
    const left = expiresAt === undefined ? this.#placeholderMs : expiresAt * 1000 - now;
    const handle = this.#placeholders.mint(text, Math.min(this.#placeholderMs, left));
    context.headers.set("Authorization", `Bearer ${handle}`);
    return modify("placeholder_minted", {
      ...admission.decision.details,
      placeholder: handle.slice(0, placeholderShownLength),
    });
  }

  /** RFC 6750 section 3.1: a request without credentials gets the bare challenge, others get an error word. */
  #refuse(
    context: RequestContext,
    why: Parameters<typeof deny>[0],
    { message, error, details = {} }: BearerRefusal,
  ): Decision {
    return deny(
      why,
      {
        code: "auth.unauthorized",
        message,
        headers: {
          "WWW-Authenticate":
            error === undefined ? this.#challenge : `${this.#challenge}, error="${error}"`,
        },
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
}

/** The fault of a token as facts of the record; the cause has its own place there. */
function faultDetails({ cause: _cause, ...facts }: TokenFault): Readonly<Record<string, string>> {
  return facts;
}

interface BearerRefusal {
  readonly message: string;
  /** Word of the challenge. */
  readonly error?: "invalid_request" | "invalid_token";
  readonly details?: Readonly<Record<string, string>>;
}

/** What admitting a token sets and records. */
interface Admission {
  readonly identity: Identity;
  readonly decision: Decision;
}

function admissionOf(token: VerifiedToken): Admission {
  const { subject, clientId, scopes, claims, expiresAt } = token;
  return Object.freeze({
    identity: Object.freeze({ subject, clientId, scopes, claims, expiresAt }),
    decision: allow("authorized", {
      token_subject: subject,
      token_audience: token.audience.join(","),
      token_scopes: scopes.join(","),
    }),
  });
}

/** The Fetch standard's CORS-preflight request; with a credential of its own it is none. */
function isPreflight({ method, headers }: RequestContext): boolean {
  return (
    method === "OPTIONS" &&
    headers.get("origin") !== undefined &&
    headers.get("access-control-request-method") !== undefined &&
    headers.get("authorization") === undefined
  );
}

/** The verifier that a configuration asks for. */
export function verifierOf(
  config: JwtValidationConfig,
  deps: Pick<PluginDeps, "clock">,
  source: JwksSource,
  fetcher: KeyFetcher,
): JwtVerifier {
  const claims = Object.entries(config.required_claims).map(
    ([name, value]) => [name, Array.isArray(value) ? value : [value]] as const,
  );
  return new JwtVerifier({
    clock: deps.clock,
    keys: {
      get withdrawals() {
        return source.withdrawals;
      },
      keysFor: (header) => source.keysFor(header, fetcher),
      keysBeside: (tried, header) => source.keysBeside(tried, header, fetcher),
      refresh: () => source.warm(fetcher),
    },
    rules: {
      issuer: config.issuer,
      algorithms: config.algorithms,
      clockSkewMs: durationMs(config.clock_skew),
      requireExpiry: config.require_exp,
      tokenType: config.token_type,
      requiredScopes: config.required_scopes,
      requiredClaims: Object.fromEntries(claims),
      acceptsBound: config.bound_tokens === "accept",
    },
  });
}
