/** The configuration of token-exchange, with the keys and defaults of the Go program and those added since. */
import { z } from "zod";
import { readSmallFile } from "../../files/watched-file.ts";
import { clientIdentityConfig, endpointProblem } from "../credentials/client-identity-config.ts";
import { guarded } from "../../yaml/empty-values.ts";
import { maxActors, originOf, serviceUrl, words } from "../config-values.ts";
import { actorChecks } from "./actors.ts";
import { dpopChoices } from "./credential.ts";
import { audienceChecks } from "./issued-audience.ts";
import { exchangeRule, type ExchangeRule, parseRoutesFile } from "./routes.ts";
import { realmUrl } from "../credentials/keycloak.ts";
import { placesConfig } from "../credentials/place-config.ts";
import { readWhere } from "../../yaml/idle-keys.ts";

/** The schema of `config` of a token-exchange entry. */
export const tokenExchangeConfig = z
  .strictObject({
    token_url: serviceUrl()
      .optional()
      .describe("Token endpoint. Default: derived from provider, provider_url and provider_realm."),
    provider: z
      .enum(["keycloak", "generic"])
      .optional()
      .describe("How the token endpoint is derived; generic needs token_url."),
    provider_url: readWhere(
      serviceUrl().optional().describe("Address of the identity provider."),
      "beside token_url",
      ({ token_url: url }) => url === undefined,
    ),
    provider_realm: readWhere(
      words().optional().describe("Realm of the identity provider (keycloak)."),
      "beside token_url",
      ({ token_url: url }) => url === undefined,
    ),
    keycloak_url: readWhere(
      serviceUrl().optional().describe("Deprecated: provider_url."),
      "beside token_url",
      ({ token_url: url }) => url === undefined,
    ),
    keycloak_realm: readWhere(
      words().optional().describe("Deprecated: provider_realm."),
      "beside token_url",
      ({ token_url: url }) => url === undefined,
    ),
    default_policy: z
      .enum(["passthrough", "exchange"])
      .default("passthrough")
      .describe("What happens to hosts that no route names."),
    no_token_policy: z
      .enum(["deny", "allow", "client-credentials"])
      .optional()
      .describe(
        "What happens to a request for an exchange host without a bearer token. Default: deny.",
      ),
    identity: clientIdentityConfig.describe("The client that this proxy is at the token endpoint."),
    actor_token_file: guarded(
      words()
        .optional()
        .describe(
          "File with the actor token (RFC 8693 section 2.1) that goes with every exchange, read again when it changes.",
        ),
    ),
    routes: z
      .strictObject({
        file: words()
          .default("/etc/authproxy/routes.yaml")
          .describe("Routes file, read again when it changes; it need not exist."),
        rules: z
          .array(exchangeRule)
          .max(10_000)
          .default([])
          .describe("Rules after those of the file."),
      })
      .prefault({})
      .describe("Which host gets a token for which audience; the first rule that matches decides."),
    places: placesConfig(
      "The only places that a token to exchange is looked for in, instead of a bearer token of Authorization: each by its name, and for the hosts and paths that it names. The issued token goes where the other one was, and is taken out of every response. Not with dpop.",
    ),
    audience_from_host: z
      .boolean()
      .default(false)
      .describe("Use the first DNS label of the destination where a route has no audience."),
    issued_audiences: z
      .enum(audienceChecks)
      .default("exact")
      .describe(
        "What the audience (`aud`) of an issued JWT must be, where one was asked for (target_audience, audience_from_host, resource). exact: nothing but what was asked for. includes: that among others. any: not looked at. Opaque tokens cannot be checked.",
      ),
    issued_actors: z
      .enum(actorChecks)
      .default("kept")
      .describe(
        "Whether an issued JWT has to name who acted for the user before (`act`, RFC 8693 section 4.1), where the exchanged token does. kept: a token that has lost them is not used. any: not looked at. Opaque tokens cannot be checked.",
      ),
    max_actors: maxActors().describe(
      "Actors that a token may name at most, exchanged or issued: a chain of delegation that is longer is refused (403).",
    ),
    dpop: guarded(
      z
        .enum(dpopChoices)
        .default("off")
        .describe(
          "Ask for tokens that are bound to a key of this process (DPoP, RFC 9449), take no others, and prove the key with every request. process: one key for all callers. caller: one for each. Keys are made at need, kept in memory and in no file.",
        ),
    ),
    resolve_placeholders: z
      .boolean()
      .default(false)
      .describe("Exchange the token behind a handle that jwt-validation gave to the agent."),
    share_tokens: z
      .boolean()
      .default(false)
      .describe(
        "Keep exchanged tokens in the store of `state` as well, sealed, so that replicas need not ask for what one of them was issued. Needs state in a file or in Redis with encryption_key_file. While the store is away the endpoint is asked. Tokens bound to a key of this process, and those exchanged for opaque tokens, are not kept there.",
      ),
  })
  .superRefine((config, context) => {
    const refuse = (path: (string | number)[], message: string): void =>
      context.addIssue({ code: "custom", path, message });
    const url = config.provider_url ?? config.keycloak_url;
    const realm = config.provider_realm ?? config.keycloak_realm;
    const isDerived = config.provider !== "generic" && url !== undefined && realm !== undefined;
    if (config.token_url === undefined && !isDerived) {
      const message =
        "token_url is required, or provider_url and provider_realm from which the one of keycloak is derived";
      refuse(["token_url"], message);
      return;
    }
    const problem = endpointProblem(config.identity, tokenUrlOf(config));
    if (problem !== undefined)
      refuse([config.token_url === undefined ? "provider_url" : "token_url"], problem);
    for (const [index, { token_url: own }] of config.routes.rules.entries()) {
      const fault = own === undefined ? undefined : endpointProblem(config.identity, own);
      if (fault !== undefined) refuse(["routes", "rules", index, "token_url"], fault);
    }
    for (const [index, rule] of config.routes.rules.entries()) {
      if (isBoundElsewhere(config, rule))
        refuse(["routes", "rules", index, "dpop"], boundElsewhere);
    }
    if (isBoundElsewhere(config, {})) refuse(["dpop"], boundElsewhere);
  });

/** Why `dpop` and `places` do not go together: the scheme of a bound token is part of Authorization. */
export const boundElsewhere = "dpop needs the Authorization field: it does not go with places";

/** Whether a host would get a bound token in a place that cannot hold one. */
export function isBoundElsewhere(
  config: { readonly dpop: string; readonly places?: unknown },
  rule: Pick<Partial<ExchangeRule>, "dpop" | "places">,
): boolean {
  const places = rule.places ?? config.places;
  return places !== undefined && (rule.dpop ?? config.dpop) !== "off";
}

/** A checked configuration. */
export type TokenExchangeConfig = z.output<typeof tokenExchangeConfig>;

/** The token endpoint for routes that do not name their own. */
export function tokenUrlOf(
  config: Pick<
    TokenExchangeConfig,
    "token_url" | "provider_url" | "keycloak_url" | "provider_realm" | "keycloak_realm"
  >,
): string {
  if (config.token_url !== undefined) return config.token_url;
  const url = config.provider_url ?? config.keycloak_url ?? "";
  const realm = config.provider_realm ?? config.keycloak_realm ?? "";
  return `${realmUrl(url, realm)}/protocol/openid-connect/token`;
}

/** Every origin that the instance may call: the endpoint's and those that routes name. */
export function tokenOriginsOf(config: TokenExchangeConfig): string[] {
  const urls = [tokenUrlOf(config)];
  for (const rule of [...rulesOfFile(config.routes.file), ...config.routes.rules]) {
    if (rule.token_url !== undefined) urls.push(rule.token_url);
  }
  return [...new Set(urls.map(originOf))];
}

/** A file that is absent or malformed has no rules here; creating the plugin says what is wrong with it. */
function rulesOfFile(path: string): readonly ExchangeRule[] {
  try {
    return parseRoutesFile(readSmallFile(path));
  } catch {
    return [];
  }
}

/** Words about keys that work and should not be used, for the log at the start. */
export function exchangeWarningsOf(config: TokenExchangeConfig): string[] {
  const warnings: string[] = [];
  if (config.keycloak_url !== undefined || config.keycloak_realm !== undefined) {
    warnings.push(
      "keycloak_url and keycloak_realm are deprecated: use provider_url and provider_realm",
    );
  }
  if (config.no_token_policy === undefined) {
    warnings.push("no_token_policy is not set: requests without a token are refused (deny)");
  }
  return warnings;
}
