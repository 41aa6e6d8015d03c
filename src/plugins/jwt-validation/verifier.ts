/** The verifier of tokens that a configuration asks for. */
import { durationMs } from "../../duration.ts";
import type { JwksSource, KeyFetcher } from "../../oauth/jwks.ts";
import type { VerificationKeys } from "../../oauth/jwt-signature.ts";
import { JwtVerifier } from "../../oauth/jwt-verifier.ts";
import type { JwtRules } from "../../oauth/token-checks.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";
import type { JwtValidationConfig } from "./config.ts";

/** What tokens of a configuration must be. */
export function rulesOf(config: JwtValidationConfig): JwtRules {
  const claims = Object.entries(config.required_claims).map(
    ([name, value]) => [name, Array.isArray(value) ? value : [value]] as const,
  );
  return {
    issuer: config.issuer,
    algorithms: config.algorithms,
    clockSkewMs: durationMs(config.clock_skew),
    requireExpiry: config.require_exp,
    tokenType: config.token_type,
    requiredScopes: config.required_scopes,
    requiredClaims: Object.fromEntries(claims),
    acceptsBound: config.bound_tokens !== "refuse",
    maxActors: config.max_actors,
  };
}

/** The keys of a source, by one generation's way to it. */
export function keysOf(source: JwksSource, fetcher: KeyFetcher): VerificationKeys {
  return {
    get withdrawals() {
      return source.withdrawals;
    },
    keysFor: (header) => source.keysFor(header, fetcher),
    keysBeside: (tried, header) => source.keysBeside(tried, header, fetcher),
    refresh: () => source.warm(fetcher),
  };
}

/** The verifier that a configuration asks for. */
export function verifierOf(
  config: JwtValidationConfig,
  deps: Pick<PluginDeps, "clock">,
  source: JwksSource,
  fetcher: KeyFetcher,
): JwtVerifier {
  return new JwtVerifier({
    clock: deps.clock,
    keys: keysOf(source, fetcher),
    rules: rulesOf(config),
  });
}
