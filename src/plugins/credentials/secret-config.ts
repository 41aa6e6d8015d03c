/** The keys of a secret that comes from a source: which kind it is, where it is asked for, and how long that may take. */
import { z } from "zod";
import { age, originOf, serviceUrl, words } from "../config-values.ts";
import {
  type ClientIdentityConfig,
  clientIdentityConfig,
  endpointProblem,
} from "./client-identity-config.ts";
import {
  federationOrigins,
  googleFederatedSource,
  googleKeySource,
  keyOrigins,
} from "./google-secret-config.ts";
import {
  envSource,
  execSource,
  fileSource,
  scopes,
  storedSecretOrigins,
  vaultSource,
  waiting,
} from "./stored-secret-config.ts";
import { guarded, narrowing, narrowsNothing } from "../../yaml/empty-values.ts";

const untilTold = age(1_000)
  .default("5m")
  .describe("How long a token is used that comes without expires_in.");
const clientOf = (what: string) => clientIdentityConfig.describe(`The client that ${what}.`);

const githubSource = z
  .strictObject({
    type: z.literal("github_app").describe("An installation token of a GitHub App."),
    app_id: z.union([words(), z.int().positive()]).describe("Client id or app id of the app."),
    private_key_file: words().describe("File with the app's private key in PEM."),
    installation_id: z
      .union([words(), z.int().positive()])
      .optional()
      .describe("The installation; or one of repository, organization and user, which have it."),
    repository: words()
      .regex(/^[\w.-]+\/[\w.-]+$/, { error: "must be OWNER/NAME" })
      .optional()
      .describe("OWNER/NAME: the installation that this repository belongs to."),
    organization: words().optional().describe("The installation of this organization."),
    user: words().optional().describe("The installation of this user."),
    api_url: serviceUrl()
      .default("https://api.github.com")
      .describe("GitHub Enterprise Server: https://HOST/api/v3."),
    repositories: narrowing(words(), 500).describe(
      "Names of repositories that the token is for; all of the installation when left out.",
    ),
    permissions: guarded(
      z
        .record(words(), z.enum(["read", "write", "admin"]))
        .refine((names) => Object.keys(names).length > 0, { error: narrowsNothing })
        .optional()
        .describe(
          "What the token may do, such as contents: read; all that the app may when left out.",
        ),
    ),
    ...waiting,
  })
  .superRefine((source, context) => {
    const keys = ["installation_id", "repository", "organization", "user"] as const;
    const set = keys.filter((key) => source[key] !== undefined);
    if (set.length === 1) return;
    const path = [set[1] ?? "installation_id"];
    context.addIssue({ code: "custom", path, message: `set one of ${keys.join(", ")}` });
  });

const oauthKeys = {
  token_url: serviceUrl().describe("Token endpoint."),
  scopes: guarded(scopes.optional().transform((names) => names ?? [])).describe(
    "Scopes to ask for. What the endpoint gives unasked when left out.",
  ),
  audience: guarded(
    words().optional().describe("Audience to ask for, where the endpoint knows that."),
  ),
  resource: guarded(words().optional().describe("Resource to ask for (RFC 8707).")),
  ttl: untilTold,
  ...waiting,
};

const refreshTokenSource = z
  .strictObject({
    type: z
      .literal("oauth_refresh_token")
      .describe("An access token by a refresh token (RFC 6749 section 6)."),
    refresh_token_file: words().describe("File with the refresh token, read for every fetch."),
    rotated_token_file: words()
      .optional()
      .describe(
        "Where a refresh token that the endpoint gave in its place is written, with mode 0600; the newer of the two files is used. Default: refresh_token_file itself.",
      ),
    identity: clientOf("the refresh token was given to").optional(),
    client_id: words().optional().describe("In place of identity: a public client."),
    ...oauthKeys,
  })
  .superRefine(({ identity, client_id: id, token_url: url }, context) => {
    if ((identity === undefined) === (id === undefined))
      context.addIssue({
        code: "custom",
        path: ["identity"],
        message: "set either identity or client_id",
      });
    refuseEndpoint(identity, url, context);
  });

const clientCredentialsSource = z
  .strictObject({
    type: z
      .literal("oauth_client_credentials")
      .describe("An access token of this proxy's own (RFC 6749 section 4.4)."),
    identity: clientOf("this proxy is at the token endpoint"),
    ...oauthKeys,
  })
  .superRefine(({ identity, token_url: url }, context) => refuseEndpoint(identity, url, context));

function refuseEndpoint(
  identity: z.output<typeof clientIdentityConfig> | undefined,
  url: string,
  context: { addIssue(issue: { code: "custom"; path: string[]; message: string }): void },
): void {
  const problem = identity === undefined ? undefined : endpointProblem(identity, url);
  if (problem !== undefined)
    context.addIssue({ code: "custom", path: ["token_url"], message: problem });
}

const kinds = [
  fileSource,
  envSource,
  execSource,
  vaultSource,
  githubSource,
  googleKeySource,
  googleFederatedSource,
  refreshTokenSource,
  clientCredentialsSource,
] as const;

/** The schema of a source. */
export const secretConfig = z
  .discriminatedUnion("type", kinds, {
    error: `must be ${kinds.map(({ shape }) => shape.type.value).join(", ")}`,
  })
  .meta({ id: "secretSource" });

/** A checked source. */
export type SecretConfig = z.output<typeof secretConfig>;

/** The keys of one kind of source. */
export type SecretConfigOf<Type extends SecretConfig["type"]> = Extract<
  SecretConfig,
  { type: Type }
>;

/** What is said of a value that is neither. */
export const secretError = "must be a text, or a mapping with the `type` of a source";

/** The schema of a secret of this proxy's own: as a text, or from a source. */
export const secretValue = z.union([words(), secretConfig], { error: secretError });

/** A checked value of {@link secretValue}. */
export type SecretValue = z.output<typeof secretValue>;

/** The origins that a source asks. Of a file that is not there yet, those that Google's files usually name. */
export function secretOrigins(source: SecretConfig): string[] {
  switch (source.type) {
    case "file":
    case "env":
    case "exec":
    case "vault":
      return storedSecretOrigins(source);
    case "github_app":
      return [originOf(source.api_url)];
    case "google_service_account":
      return keyOrigins(source);
    case "google_workload_identity":
      return federationOrigins(source);
    case "oauth_refresh_token":
    case "oauth_client_credentials":
      return [originOf(source.token_url), ...identityOrigins(source.identity)];
  }
}

function identityOrigins(identity: ClientIdentityConfig | undefined): string[] {
  const secret = identity?.client_secret;
  return typeof secret === "object" ? storedSecretOrigins(secret) : [];
}
