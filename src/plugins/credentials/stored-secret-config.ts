/** The keys of secrets that somebody stored: in a file, a variable, a vault, or wherever a command finds them; and what all sources share. */
import { z } from "zod";
import { age, duration, originOf, serviceUrl, words } from "../config-values.ts";
import { guarded } from "../../yaml/empty-values.ts";

/** How long a source is waited for. */
export const waiting = {
  max_wait: duration(1, 60_000)
    .default("5s")
    .describe("How long a request waits at most while there is no value yet; 503 then."),
  timeout: duration(100, 300_000)
    .default("10s")
    .describe("How long one fetch takes at most, with all its calls."),
};

/** Scopes of a token. */
export const scopes = z.array(words()).min(1).max(100);

/** A file. */
export const fileSource = z.strictObject({
  type: z.literal("file").describe("A file, looked at once a second at most when it is used."),
  path: words().describe("The file; its text without white space around it is the value."),
});

/** A variable. */
export const envSource = z.strictObject({
  type: z.literal("env").describe("A variable of this process's environment, read at the start."),
  name: words().describe("The variable."),
});

/** A command. */
export const execSource = z.strictObject({
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
  ttl: age(1_000)
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

/** A vault. */
export const vaultSource = z.strictObject({
  type: z.literal("vault").describe("A field of a secret in HashiCorp Vault or OpenBao."),
  address: serviceUrl().describe(
    "The server. A private authority is trusted by ca_file, or by tls_bridge.upstream_ca_bundle.",
  ),
  ca_file: guarded(
    words()
      .optional()
      .describe(
        "File with the certificates in PEM that the server's has to be signed by, in place of all others. Read again when it changes.",
      ),
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
  refresh: age(1_000).default("5m").describe("How often a secret without a lease is read again."),
  max_age: age(1_000)
    .default("1h")
    .describe("How long a secret without a lease is served while it cannot be read again."),
  ...waiting,
});

const storedSecret = z
  .discriminatedUnion("type", [fileSource, envSource, execSource, vaultSource], {
    error: "must be file, env, exec or vault: no other source gives a client secret",
  })
  .meta({ id: "storedSecretSource" });

/** A client secret: as a text, or from where somebody stored it. Tokens that end within the hour are no client secrets. */
export const clientSecretValue = z.union([words(), storedSecret], {
  error: "must be a text, or a mapping with the `type` file, env, exec or vault",
});

/** The origins that a stored secret is asked for at. */
export function storedSecretOrigins(source: z.output<typeof storedSecret>): string[] {
  return source.type === "vault" ? [originOf(source.address)] : [];
}
