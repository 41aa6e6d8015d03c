/** The keys of `introspection`: where opaque tokens are looked up, and as whom. */
import { z } from "zod";
import type { ConfigProblem } from "../../pipeline/plugin.ts";
import {
  clientIdentityConfig,
  endpointProblem,
  unusedIdentityKeys,
} from "../credentials/client-identity-config.ts";
import { duration, serviceUrl } from "../config-values.ts";

/** The schema of `introspection`. */
export const introspectionConfig = z
  .strictObject({
    url: serviceUrl()
      .optional()
      .describe("Introspection endpoint. Default: that of the Keycloak layout below the issuer."),
    identity: clientIdentityConfig.describe(
      "The client that this proxy is at the introspection endpoint, with the keys of token-exchange's identity.",
    ),
    cache_ttl: duration(0)
      .default("1m")
      .describe(
        "How long a response is believed, and never longer than the token's exp; a token that was revoked passes that long. 0s asks for every request.",
      ),
    require_audience: z
      .boolean()
      .default(true)
      .describe(
        "Refuse tokens of which the endpoint names no aud. false where it never does: every token of the issuer then passes.",
      ),
    max_pending: z
      .int()
      .min(1)
      .max(100_000)
      .default(256)
      .describe("Calls at once; more tokens that nobody has asked about are answered 503."),
  })
  .describe("Tokens that are no JWT are looked up at the authorization server (RFC 7662).");

interface Introspecting {
  readonly issuer: string;
  readonly introspection?: z.output<typeof introspectionConfig> | undefined;
}

/** Where opaque tokens are looked up; undefined where they are not. */
export function introspectionUrlOf({ issuer, introspection }: Introspecting): string | undefined {
  if (introspection === undefined) return undefined;
  const layout = "protocol/openid-connect/token/introspect";
  return introspection.url ?? `${issuer.replace(/\/$/, "")}/${layout}`;
}

/** Why nothing can be asked there. */
export function introspectionProblem(config: Introspecting): string | undefined {
  const { introspection } = config;
  const endpoint = introspectionUrlOf(config);
  if (introspection === undefined || endpoint === undefined) return undefined;
  return URL.canParse(endpoint)
    ? endpointProblem(introspection.identity, endpoint)
    : "is required: the issuer is not an address that it could be derived from";
}

/** Keys that nothing reads, written or not. */
export function unusedIntrospectionKeys({ introspection }: Introspecting): ConfigProblem[] {
  if (introspection === undefined) return [];
  return unusedIdentityKeys(introspection.identity, ["introspection", "identity"]);
}
