/** The verifier of opaque tokens that a configuration asks for. */
import { durationMs } from "../../duration.ts";
import { OpaqueVerifier } from "../../oauth/introspection.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";
import { ClientIdentity } from "../credentials/client-identity.ts";
import { introspectionUrlOf, type JwtValidationConfig } from "./config.ts";
import { rulesOf } from "./verifier.ts";

/** Looks tokens up that are no JWT. */
export interface OpaqueTokens {
  readonly verifier: OpaqueVerifier;
  /** True, or why nothing can be asked yet. */
  ready(): true | string;
}

/** Undefined where the file has no `introspection`. */
export function opaqueTokensOf(
  config: JwtValidationConfig,
  deps: PluginDeps,
): OpaqueTokens | undefined {
  const { introspection } = config;
  const url = introspectionUrlOf(config);
  if (introspection === undefined || url === undefined) return undefined;
  const identity = new ClientIdentity(introspection.identity, deps);
  const verifier = new OpaqueVerifier(
    {
      url,
      call: deps.fetch,
      client: () => identity.authentication(),
      onCall: (problem) => {
        deps.count(problem === undefined ? "introspected" : "introspection_failed");
        if (problem !== undefined) deps.log.warn({ problem }, "token not introspected");
      },
    },
    {
      rules: rulesOf(config),
      requireAudience: introspection.require_audience,
      ttlMs: durationMs(introspection.cache_ttl),
      maxPending: introspection.max_pending,
    },
    deps.clock,
  );
  return { verifier, ready: () => identity.ready() };
}
