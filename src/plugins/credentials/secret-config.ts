/** The keys of a secret that comes from a source: which kind it is, where it is asked for, and how long that may take. */
import { z } from "zod";
import { duration, originOf, serviceUrl, words } from "../config-values.ts";
import { clientIdentityConfig, endpointProblem } from "./client-identity-config.ts";
import {
  federationOrigins,
  googleFederatedSource,
  googleKeySource,
  keyOrigins,
} from "./google-secret-config.ts";
import { scopes, waiting } from "./secret-keys.ts";

const untilTold = duration(1_000)
  .default("5m")
  .describe("How long a token is used that comes without expires_in.");
const clientOf = (what: string) => clientIdentityConfig.describe(`The client that ${what}.`);

const fileSource = z.strictObject({
  type: z.literal("file").describe("A file, looked at once a second at most when it is used."),
  path: words().describe("The file; its text without white space around it is the value."),
});

const envSource = z.strictObject({
  type: z.literal("env").describe("A variable of this process's environment, read at the start."),
  name: words().describe("The variable."),
});

const execSource = z.strictObject({
  type: z
    .literal("exec")
    .describe(
      'What a command prints: JSON `{"value": …, "expires_at": …}` (RFC 3339) or with `ttl` (seconds, or a duration), or the bare value where `ttl` is set here. No shell, never twice at once, ended when it takes longer than timeout.',
    ),
  command: z
    .array(z.string())
    .min(1)
    .max(64)
    .describe("The path of the program, from the root, and its arguments."),
  env: z
    .record(words(), z.string())
    .default({})
    .describe("Its environment, besides PATH; it gets nothing of this process's own."),
  ttl: duration(1_000)
    .optional()
    .describe("How long a value is good for where the output does not say it."),
  ...waiting,
});

const serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const mountName = (usual: string) =>
  words().default(usual).describe("Where the method is mounted, below auth/.");

const vaultAuth = z.discriminatedUnion("method", [
  z.strictObject({
    method: z.literal("kubernetes").describe("The service account of this pod."),
    role: words().describe("The role at the server."),
    mount: mountName("kubernetes"),
    token_file: words().default(serviceAccountToken).describe("Read at every login."),
  }),
  z.strictObject({
    method: z.literal("jwt").describe("A JWT that somebody renews in a file."),
    role: words().describe("The role at the server."),
    mount: mountName("jwt"),
    token_file: words().describe("Read at every login."),
  }),
  z.strictObject({
    method: z.literal("approle").describe("A role id, and the secret id that goes with it."),
    role_id: words().describe("The role id."),
    secret_id_file: words().optional().describe("File with the secret id, read at every login."),
    mount: mountName("approle"),
  }),
  z.strictObject({
    method: z.literal("token").describe("A token that somebody else had made."),
    token_file: words().describe("Read when the token has ended or is refused."),
  }),
]);

const vaultPath = words()
  .regex(/^[^/].*[^/]$|^[^/]$/, { error: "has no slash at its ends" })
  .regex(/^(?!.*(?:^|\/)\.{1,2}(?:\/|$))/, { error: "has no segment . or .." });

const vaultSource = z.strictObject({
  type: z.literal("vault").describe("A field of a secret in HashiCorp Vault or OpenBao."),
  address: serviceUrl().describe(
    "The server. A private authority is trusted by ca_file, or by tls_bridge.upstream_ca_bundle.",
  ),
  ca_file: words()
    .optional()
    .describe(
      "File with the certificates in PEM that the server's has to be signed by, in place of all others. Read again when it changes.",
    ),
  namespace: words().optional().describe("Namespace (X-Vault-Namespace)."),
  auth: vaultAuth.describe("How this proxy shows the server who it is."),
  engine: z
    .enum(["kv-v2", "kv-v1", "other"])
    .default("kv-v2")
    .describe(
      "other: an engine whose secrets have a lease, such as database or aws; the lease is renewed, and the secret read anew where that is not granted.",
    ),
  mount: vaultPath.default("secret").describe("Where the engine is mounted."),
  path: vaultPath.describe("The secret, below the mount: without data/ for kv-v2."),
  field: words().describe("The field of the secret."),
  refresh: duration(1_000)
    .default("5m")
    .describe("How often a secret without a lease is read again."),
  max_age: duration(1_000)
    .default("1h")
    .describe("How long a secret without a lease is served while it cannot be read again."),
  ...waiting,
});

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
    repositories: z
      .array(words())
      .max(500)
      .default([])
      .describe("Names of repositories that the token is for; all of the installation when empty."),
    permissions: z
      .record(words(), z.enum(["read", "write", "admin"]))
      .default({})
      .describe("What the token may do, such as contents: read; all that the app may when empty."),
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
  scopes: scopes.default([]).describe("Scopes to ask for."),
  audience: words().optional().describe("Audience to ask for, where the endpoint knows that."),
  resource: words().optional().describe("Resource to ask for (RFC 8707)."),
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

/** The schema of a source. */
export const secretConfig = z.discriminatedUnion("type", [
  fileSource,
  envSource,
  execSource,
  vaultSource,
  githubSource,
  googleKeySource,
  googleFederatedSource,
  refreshTokenSource,
  clientCredentialsSource,
]);

/** A checked source. */
export type SecretConfig = z.output<typeof secretConfig>;

/** The keys of one kind of source. */
export type SecretConfigOf<Type extends SecretConfig["type"]> = Extract<
  SecretConfig,
  { type: Type }
>;

/** The origins that a source asks. Of a file that is not there yet, those that Google's files usually name. */
export function secretOrigins(source: SecretConfig): string[] {
  switch (source.type) {
    case "file":
    case "env":
    case "exec":
      return [];
    case "vault":
      return [originOf(source.address)];
    case "github_app":
      return [originOf(source.api_url)];
    case "google_service_account":
      return keyOrigins(source);
    case "google_workload_identity":
      return federationOrigins(source);
    case "oauth_refresh_token":
    case "oauth_client_credentials":
      return [originOf(source.token_url)];
  }
}
