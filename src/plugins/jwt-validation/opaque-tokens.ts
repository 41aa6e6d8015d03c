/** The verifier of opaque tokens that a configuration asks for. */
import { durationMs } from "../../duration.ts";
import { OpaqueVerifier } from "../../oauth/introspection.ts";
import { PluginConfigError, type PluginDeps } from "../../pipeline/plugin.ts";
import { ClientIdentity } from "../credentials/client-identity.ts";
import type { ClientIdentityConfig } from "../credentials/client-identity-config.ts";
import type { IdentityDeps } from "../credentials/credential-files.ts";
import type { SecretSet } from "../credentials/secret-set.ts";
import type { JwtValidationConfig } from "./config.ts";
import { introspectionUrlOf } from "./introspection-config.ts";
import { rulesOf } from "./verifier.ts";

/** Looks tokens up that are no JWT. */
export interface OpaqueTokens {
  readonly verifier: OpaqueVerifier;
  /** True, or why nothing can be asked yet. */
  ready(): true | string;
}

/** Where the client secret is in the configuration. */
export const introspectionSecret = ["introspection", "identity", "client_secret"];

/** Undefined where the file has no `introspection`. */
export function opaqueTokensOf(
  config: JwtValidationConfig,
  deps: PluginDeps,
  secrets: SecretSet,
): OpaqueTokens | undefined {
  const { introspection } = config;
  const url = introspectionUrlOf(config);
  if (introspection === undefined || url === undefined) return undefined;
  const clientSecret = secrets.get(introspectionSecret.join("."));
  const identity = identityOf(introspection.identity, { ...deps, clientSecret });
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

/** Its files are named below `introspection` here. */
function identityOf(config: ClientIdentityConfig, deps: IdentityDeps): ClientIdentity {
  try {
    return new ClientIdentity(config, deps);
  } catch (error) {
    if (!(error instanceof PluginConfigError)) throw error;
    throw new PluginConfigError(
      error.problems.map(({ path, message }) => ({ path: ["introspection", ...path], message })),
    );
  }
}
