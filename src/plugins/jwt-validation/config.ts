/** The configuration of jwt-validation, with the keys and defaults of the Go program and those added since. */
import { z } from "zod";
import { compileBypassPaths } from "../../pattern/path-pattern.ts";
import { messageOf } from "../../errors.ts";
import { signatureAlgorithms, trustDomainOfIssuer } from "../../oauth/token-checks.ts";
import { defaultClientIdFile } from "../credentials/client-identity-config.ts";
import { age, duration, hostGlob, maxActors, serviceUrl, words } from "../config-values.ts";
import { corsConfig } from "./cors-config.ts";
import { dpopConfig } from "./dpop-config.ts";
import { guarded } from "../../yaml/empty-values.ts";
import { defaultIdentityHeaders } from "./identity-headers.ts";
import { introspectionConfig, introspectionProblem } from "./introspection-config.ts";
import { isKeycloak, keyLocationOf } from "./key-location.ts";
import { resourceConfig, tokenlessProblems } from "./resource-config.ts";
import { readWhere } from "../../yaml/idle-keys.ts";

/** Probes, and what clients have to read before they can have a token (RFC 9728 section 3.1 appends the resource's path). */
const defaultBypassPaths = [
  "/.well-known/*",
  "/.well-known/oauth-protected-resource/*",
  "/.well-known/oauth-protected-resource/*/*",
  "/healthz",
  "/readyz",
  "/livez",
  "/metrics",
];

const claimValue = z.union([z.string(), z.number(), z.boolean()]);

/** The schema of `config` of a jwt-validation entry. */
export const jwtValidationConfig = z
  .strictObject({
    issuer: words().describe(
      "The `iss` claim that tokens must have, compared exactly. A SPIFFE trust domain, such as spiffe://example.org, takes JWT-SVIDs of its workloads instead: their `sub` is a SPIFFE ID of it, and their keys come from the Workload API (the block spiffe) unless jwks_url is set.",
    ),
    jwks_url: serviceUrl()
      .optional()
      .describe(
        "Address of the issuer's key set. Default: the Keycloak certs endpoint below keycloak_url and keycloak_realm when both are set, else below the issuer.",
      ),
    keycloak_url: readWhere(
      serviceUrl()
        .optional()
        .describe(
          "Address of Keycloak inside the cluster, when it differs from the public issuer.",
        ),
      "without keycloak_realm, or beside jwks_url or discovery",
      isKeycloak,
    ),
    keycloak_realm: readWhere(
      words().optional().describe("Realm below keycloak_url."),
      "without keycloak_url, or beside jwks_url or discovery",
      isKeycloak,
    ),
    discovery: z
      .boolean()
      .default(false)
      .describe(
        "Find the key set through the issuer's OpenID Connect discovery document instead of the Keycloak layout.",
      ),
    audience_mode: z
      .enum(["static", "per-host"])
      .default("static")
      .describe(
        "static: tokens must be for one of the configured audiences. per-host: for the first DNS label of the request's Host field.",
      ),
    audience: z.string().optional().describe("An accepted audience."),
    audience_file: words()
      .optional()
      .describe(
        `File that holds an accepted audience, read again when it changes. Default when no audience is set at all: ${defaultClientIdFile}.`,
      ),
    allowed_audiences: z
      .array(z.string())
      .max(1_000)
      .default([])
      .describe("Further accepted audiences; one match is enough."),
    allowed_hosts: readWhere(
      guarded(
        z
          .array(hostGlob())
          .max(1_000)
          .default([])
          .describe(
            "per-host mode: host names, as globs, whose first label may serve as the audience. Without it every Host field is believed.",
          ),
      ),
      "without audience_mode: per-host",
      ({ audience_mode: mode }) => mode === "per-host",
    ),
    bypass_paths: z
      .array(z.string())
      .max(1_000)
      .default([...defaultBypassPaths])
      .describe("Paths that need no token, as globs in which * stays within one segment."),
    cors_preflight: z
      .enum(["deny", "pass"])
      .default("deny")
      .describe(
        "What happens to the question that browsers ask before a request of another origin: OPTIONS with Origin and Access-Control-Request-Method, and never with a token. deny: 401 like every request without one. pass: the agent answers it.",
      ),
    cors: guarded(
      corsConfig
        .optional()
        .describe(
          "Pages of other origins that may use the agent: their preflights need no token, and they can read the proxy's refusals. In place of cors_preflight.",
        ),
      "all",
    ),
    protected_resource: guarded(
      resourceConfig
        .optional()
        .describe(
          "The agent's OAuth 2.0 Protected Resource Metadata (RFC 9728), served by the proxy to everybody. Challenges then lead to it.",
        ),
      "all",
    ),
    resource_metadata: serviceUrl()
      .refine((url) => /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(url), {
        error: "must be written in visible ASCII without quotes and backslashes",
      })
      .optional()
      .describe(
        "Address of the agent's OAuth 2.0 Protected Resource Metadata (RFC 9728), for the challenge of a refused request. MCP clients find the authorization server by it.",
      ),
    wait_for_keys: z
      .boolean()
      .default(true)
      .describe(
        "Stay unready (/readyz 503) until the issuer's keys were fetched. /livez and /healthz answer all the same. Set false where the issuer is reached only once this process is ready.",
      ),
    algorithms: guarded(
      z
        .array(z.enum(signatureAlgorithms))
        .min(1)
        .default([...signatureAlgorithms])
        .describe("Signature algorithms that are accepted. Symmetric ones cannot be."),
    ),
    clock_skew: duration(0)
      .default("0s")
      .describe(
        "Tolerance for exp, nbf and iat between this machine's clock and the issuer's. At least 30 s for nbf and 60 s for iat.",
      ),
    require_exp: z.boolean().default(true).describe("Refuse tokens that never expire."),
    token_type: guarded(
      words()
        .optional()
        .describe(
          "The `typ` header that tokens must have, e.g. at+jwt (RFC 9068). Any when absent.",
        ),
    ),
    bound_tokens: z
      .enum(["proof", "refuse", "accept"])
      .default("proof")
      .describe(
        "Tokens that are bound to a key of the client (`cnf`). proof: accepted with the proof of that key: a DPoP proof (RFC 9449), or the client certificate of the connection (RFC 8705). refuse: never. accept: as bearer tokens, where something in front of the proxy has checked the proof.",
      ),
    backchannel_logout: guarded(
      z
        .boolean()
        .default(false)
        .describe(
          "Take logout tokens of the issuer at /backchannel-logout of the statistics listener (OpenID Connect Back-Channel Logout): what is remembered of that login, exchanged tokens included, is dropped, and its tokens are refused.",
        ),
    ),
    logout_audiences: readWhere(
      z
        .array(words())
        .max(100)
        .default([])
        .describe(
          "Client ids that logout tokens must be for, one of them. Default: the accepted audiences.",
        ),
      "without backchannel_logout: true",
      ({ backchannel_logout: on }) => on === true,
    ),
    logins_when_away: readWhere(
      z
        .enum(["refuse", "local"])
        .default("refuse")
        .describe(
          "What happens to tokens, with backchannel_logout, while the store of `state`, in which replicas hear which logins have ended, is away. local: those that this process has heard of are refused.",
        ),
      "without backchannel_logout: true",
      ({ backchannel_logout: on }) => on === true,
    ),
    introspection: guarded(
      introspectionConfig
        .optional()
        .describe("Look opaque tokens up at the authorization server (RFC 7662)."),
      "all",
    ),
    dpop: guarded(
      dpopConfig
        .optional()
        .describe("Proofs of possession for tokens that are bound to a key (RFC 9449)."),
      "all",
    ),
    max_actors: maxActors().describe(
      "Actors that a token may name at most (`act`, RFC 8693 section 4.1): one that was passed on more often is refused.",
    ),
    required_scopes: guarded(
      z
        .array(words())
        .max(100)
        .default([])
        .describe("Scopes that a token must all have; without them the answer is 403."),
    ),
    required_claims: guarded(
      z
        .record(words(), z.union([claimValue, z.array(claimValue).min(1)]))
        .default({})
        .describe("Claims that a token must have, each with the accepted value or values."),
    ),
    identity_headers: guarded(
      z
        .array(z.string().regex(/^[!#$%&'*+\-.^`|~\w]+$/, { error: "must be a header name" }))
        .max(1_000)
        .default([...defaultIdentityHeaders])
        .describe(
          "Header fields with which a client could pose as somebody: removed from every request, in every spelling with -, _ or . and in any case. A trailing * stands for any ending.",
        ),
    ),
    placeholder_mode: guarded(
      z
        .boolean()
        .default(false)
        .describe("Give the agent an opaque handle instead of the caller's token."),
    ),
    placeholder_ttl: readWhere(
      age().default("1h").describe("Life of a handle; it never outlives the token."),
      "without placeholder_mode: true",
      ({ placeholder_mode: on }) => on === true,
    ),
    placeholders_when_away: readWhere(
      z
        .enum(["refuse", "local"])
        .default("refuse")
        .describe(
          "What happens to tokens, with placeholder_mode, while the store of `state`, in which replicas find what handles stand for, is away. local: they get handles that only this process knows.",
        ),
      "without placeholder_mode: true",
      ({ placeholder_mode: on }) => on === true,
    ),
  })
  .superRefine((config, context) => {
    try {
      compileBypassPaths(config.bypass_paths);
    } catch (error) {
      context.addIssue({ code: "custom", path: ["bypass_paths"], message: messageOf(error) });
    }
    if (config.discovery && config.jwks_url !== undefined) {
      const message = "cannot be combined with jwks_url: one of them says where the keys are";
      context.addIssue({ code: "custom", path: ["discovery"], message });
    }
    for (const problem of tokenlessProblems(config))
      context.addIssue({ code: "custom", ...problem });
    if (config.dpop?.required === true && config.bound_tokens !== "proof") {
      const message = `must be proof where dpop.required is true, not ${config.bound_tokens}`;
      context.addIssue({ code: "custom", path: ["bound_tokens"], message });
    }
    const isNamed = config.audience_mode === "static" || config.logout_audiences.length > 0;
    if (config.backchannel_logout && !isNamed) {
      const message = "is required for backchannel_logout with audience_mode: per-host";
      context.addIssue({ code: "custom", path: ["logout_audiences"], message });
    }
    const problem = introspectionProblem(config);
    if (problem !== undefined) {
      context.addIssue({ code: "custom", path: ["introspection", "url"], message: problem });
    }
    if (config.issuer.startsWith("spiffe://")) {
      if (trustDomainOfIssuer(config.issuer) === undefined) {
        const message =
          "must be a SPIFFE trust domain without a path, such as spiffe://example.org";
        context.addIssue({ code: "custom", path: ["issuer"], message });
      }
      for (const key of ["discovery", "keycloak_url", "keycloak_realm", "introspection"] as const) {
        if (!config[key]) continue;
        const message = "cannot be combined with a SPIFFE trust domain as issuer";
        context.addIssue({ code: "custom", path: [key], message });
      }
    }
    const location = keyLocationOf(config);
    if (!URL.canParse(location.url)) {
      const message = "is not an address, so the key set cannot be derived from it: set jwks_url";
      context.addIssue({ code: "custom", path: ["issuer"], message });
    }
  });

/** A checked configuration. */
export type JwtValidationConfig = z.output<typeof jwtValidationConfig>;
