/** OAuth 2.0 Protected Resource Metadata (RFC 9728), served in place of the agent. */
import { type Decision, type RequestContext, respond } from "../../pipeline/plugin.ts";
import type { JwtValidationConfig } from "./config.ts";
import { dpopOf } from "./dpop-config.ts";

const wellKnown = "/.well-known/oauth-protected-resource";
const maxAgeSeconds = 300;

/** Where clients find the metadata: that of the file, else what is served here, else nowhere. */
export function metadataUrlOf({
  resource_metadata: elsewhere,
  protected_resource: own,
}: JwtValidationConfig): string | undefined {
  if (elsewhere !== undefined || own === undefined) return elsewhere;
  const { origin } = new URL(own.resource);
  return `${origin}${wellKnown}${pathOf(own.resource)}`;
}

/** RFC 9728 section 3.1: a path of the resource stands behind the well-known one. */
function pathOf(resource: string): string {
  return new URL(resource).pathname.replace(/\/$/, "");
}

/** The document of one configuration. */
export class ResourceMetadata {
  readonly #paths: ReadonlySet<string>;
  readonly #body: Buffer;

  private constructor(paths: readonly string[], document: object) {
    this.#paths = new Set(paths);
    this.#body = Buffer.from(JSON.stringify(document));
  }

  /** Undefined where the file has none. */
  static of(config: JwtValidationConfig): ResourceMetadata | undefined {
    const { protected_resource: own } = config;
    if (own === undefined) return undefined;
    // Without its path, too: clients that know only the host ask there.
    const paths = [wellKnown, `${wellKnown}${pathOf(own.resource)}`];
    return new ResourceMetadata(paths, documentOf(config, own));
  }

  /** The response to a request for it; undefined for other requests. */
  answer({ method, pathname }: RequestContext): Decision | undefined {
    if (!this.#paths.has(pathname)) return undefined;
    if (method !== "GET" && method !== "HEAD") {
      const headers = { Allow: "GET, HEAD" };
      return respond("resource_metadata", { status: 405, headers, body: Buffer.alloc(0) });
    }
    const headers = {
      "Content-Type": "application/json",
      "Cache-Control": `public, max-age=${maxAgeSeconds}`,
    };
    return respond("resource_metadata", { status: 200, headers, body: this.#body });
  }
}

function documentOf(
  config: JwtValidationConfig,
  own: NonNullable<JwtValidationConfig["protected_resource"]>,
): object {
  const { issuer, required_scopes: required, bound_tokens: bound } = config;
  const { authorization_servers: servers = [issuer], scopes_supported: scopes = required } = own;
  const { tls_client_certificate_bound_access_tokens: certified = bound === "proof" } = own;
  const { algorithms, required: isRequired } = dpopOf(config);
  return {
    resource: own.resource,
    authorization_servers: servers,
    ...(scopes.length === 0 ? {} : { scopes_supported: scopes }),
    bearer_methods_supported: own.bearer_methods_supported,
    ...(own.resource_name === undefined ? {} : { resource_name: own.resource_name }),
    ...present(own, ["resource_documentation", "resource_policy_uri", "resource_tos_uri"]),
    ...(certified ? { tls_client_certificate_bound_access_tokens: true } : {}),
    ...(bound === "proof" ? { dpop_signing_alg_values_supported: algorithms } : {}),
    ...(isRequired ? { dpop_bound_access_tokens_required: true } : {}),
  };
}

function present<T extends object>(from: T, keys: readonly (keyof T)[]): Partial<T> {
  const known = keys.filter((key) => from[key] !== undefined);
  return Object.fromEntries(known.map((key) => [key, from[key]])) as Partial<T>;
}
