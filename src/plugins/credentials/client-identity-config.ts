/** The keys of `identity`: which client this proxy is at the token endpoint, and how it proves that. */
import type { ConfigProblem } from "../../pipeline/plugin.ts";
import { z } from "zod";
import { signatureAlgorithms } from "../../oauth/token-checks.ts";
import { duration, words } from "../config-values.ts";
import { clientSecretValue } from "./stored-secret-config.ts";
import { readWhere } from "../../yaml/idle-keys.ts";

/** Where the operator of the Go program mounts the agent's client id. */
export const defaultClientIdFile = "/shared/client-id.txt";
/** And its secret. */
export const defaultSecretFile = "/shared/client-secret.txt";

const identityKeys = z.strictObject({
  type: z
    .enum([
      "client-secret",
      "spiffe",
      "private-key-jwt",
      "tls-client-auth",
      "kubernetes-service-account",
    ])
    .describe(
      "client-secret: a shared secret. spiffe: a JWT-SVID as client assertion. private-key-jwt: a client assertion that is signed for each call with the key of signing_key_file (RFC 7523). tls-client-auth: a client certificate in the TLS connection to the token endpoint (RFC 8705, tls_client_auth and self_signed_tls_client_auth). kubernetes-service-account: the projected token of service_account_token_file as client assertion.",
    ),
  client_id: words()
    .optional()
    .describe(
      "Client id. With the types spiffe and kubernetes-service-account it can be left out: the assertion then says who the client is (RFC 7521 section 4.2), as Keycloak's federated client authentication wants it.",
    ),
  client_id_file: words()
    .optional()
    .describe(
      `File with the client id, read again when it changes. Default: ${defaultClientIdFile}; with the types spiffe and kubernetes-service-account only where that file exists.`,
    ),
  send_client_id: z
    .boolean()
    .default(true)
    .describe(
      "false: the form has no client_id beside the assertion (types spiffe, private-key-jwt and kubernetes-service-account).",
    ),
  client_secret: clientSecretValue
    .optional()
    .describe(
      "Client secret (type client-secret): a text, or the source that it comes from, by its `type` (file, env, exec, vault).",
    ),
  client_secret_file: words()
    .optional()
    .describe(
      `File with the client secret, read again when it changes. Default: ${defaultSecretFile}.`,
    ),
  client_auth_method: readWhere(
    z
      .enum(["client_secret_post", "client_secret_basic"])
      .default("client_secret_post")
      .describe("Whether the secret goes into the form or into a Basic Authorization field."),
    "without type: client-secret",
    ({ type }) => type === "client-secret",
  ),
  jwt_audience: words()
    .optional()
    .describe(
      "Audience that the JWT-SVID or the service account token must have (types spiffe and kubernetes-service-account), or that the signed assertion gets (type private-key-jwt; default: the address of the token endpoint; Keycloak also takes the address of its realm).",
    ),
  jwt_svid_file: words()
    .optional()
    .describe(
      "File with the JWT-SVID, read again when it changes (type spiffe). Default: none, the JWT-SVID comes from the Workload API of the block spiffe.",
    ),
  assertion_type: readWhere(
    z
      .enum(["jwt-spiffe", "jwt-bearer"])
      .default("jwt-spiffe")
      .describe(
        "How the assertion is announced to the token endpoint (type spiffe; the other types are always jwt-bearer).",
      ),
    "without type: spiffe",
    ({ type }) => type === "spiffe",
  ),
  assertion_lifetime: readWhere(
    duration(5_000, 3_600_000)
      .default("60s")
      .describe(
        "How long a signed assertion is good for (type private-key-jwt). Providers refuse assertions that are good for long: Keycloak takes a minute unless told otherwise. 5s to 1h.",
      ),
    "without type: private-key-jwt",
    ({ type }) => type === "private-key-jwt",
  ),
  signing_key_file: words()
    .optional()
    .describe(
      "File with the private key in PEM (PKCS#8, PKCS#1, SEC1) or as a JWK, read again when it changes (type private-key-jwt).",
    ),
  signing_key_id: words()
    .optional()
    .describe("`kid` of the assertion. Default: the kid of the JWK, else none."),
  signing_algorithm: z
    .enum(signatureAlgorithms)
    .optional()
    .describe("Algorithm of the assertion. Default: RS256, ES256 to ES512 or EdDSA by the key."),
  signing_certificate_file: words()
    .optional()
    .describe(
      "File with the certificate of the key in PEM; its SHA-256 thumbprint is sent as x5t#S256, by which Entra ID finds the key. Read again when it changes.",
    ),
  client_certificate_file: words()
    .optional()
    .describe(
      "File with the client certificate and its intermediates in PEM, read again when it changes (type tls-client-auth). Default: none, the certificate and its key are the X.509-SVID from the Workload API of the block spiffe.",
    ),
  client_certificate_key_file: words()
    .optional()
    .describe("File with the key of that certificate in PEM, read again when it changes."),
  service_account_token_file: words()
    .optional()
    .describe(
      "File with the service account token that Kubernetes projects for jwt_audience, read again when it changes (type kubernetes-service-account).",
    ),
});

type IdentityKeys = z.output<typeof identityKeys>;
type IdentityType = IdentityKeys["type"];

/** What a type reads; without the keys that are required it has nothing to show. */
const keysOfType = {
  "client-secret": { required: [], optional: ["client_secret", "client_secret_file"] },
  spiffe: { required: ["jwt_audience"], optional: ["jwt_svid_file"] },
  "private-key-jwt": {
    required: ["signing_key_file"],
    optional: ["signing_key_id", "signing_algorithm", "signing_certificate_file", "jwt_audience"],
  },
  "tls-client-auth": {
    required: [],
    optional: ["client_certificate_file", "client_certificate_key_file"],
  },
  "kubernetes-service-account": {
    required: ["jwt_audience", "service_account_token_file"],
    optional: [],
  },
} as const satisfies Readonly<
  Record<IdentityType, Readonly<Record<"required" | "optional", readonly (keyof IdentityKeys)[]>>>
>;

/** The schema of `identity`. */
export const clientIdentityConfig = identityKeys.superRefine((identity, context) => {
  const { type } = identity;
  const refuse = (key: keyof IdentityKeys, message: string): void =>
    context.addIssue({ code: "custom", path: [key], message });
  for (const key of keysOfType[type].required) {
    if (identity[key] === undefined) refuse(key, `is required for identity.type ${type}`);
  }
  const { client_certificate_file: certificate, client_certificate_key_file: key } = identity;
  const pairWords = "is required: a certificate and its key come from files together";
  if (certificate === undefined && key !== undefined) refuse("client_certificate_file", pairWords);
  if (certificate !== undefined && key === undefined)
    refuse("client_certificate_key_file", pairWords);
  if (typeof identity.client_secret === "object") {
    if (type !== "client-secret")
      refuse("client_secret", `has no effect with identity.type ${type}`);
    if (identity.client_secret_file !== undefined)
      refuse("client_secret_file", "has no effect beside client_secret");
  }
  if (!identity.send_client_id && (type === "client-secret" || type === "tls-client-auth")) {
    const what = type === "client-secret" ? "a secret" : "a certificate";
    refuse(
      "send_client_id",
      `has to be true for identity.type ${type}: ${what} says nothing of whose it is`,
    );
  }
});

/** A checked `identity`. */
export type ClientIdentityConfig = z.output<typeof clientIdentityConfig>;

/** Why a client of this identity can show nothing to the endpoint. */
export function endpointProblem(
  { type }: Pick<ClientIdentityConfig, "type">,
  url: string,
): string | undefined {
  return type === "tls-client-auth" && !url.startsWith("https:")
    ? "must be an https:// address: identity.type tls-client-auth shows a certificate in TLS"
    : undefined;
}

/** Whether the proof alone says who the client is. */
export function namesItself({ type }: ClientIdentityConfig): boolean {
  return type === "spiffe" || type === "kubernetes-service-account";
}

/** Whether the proof is the workload's own identity, from the Workload API. */
export function isOfWorkload(identity: ClientIdentityConfig): boolean {
  const { type, jwt_svid_file: token, client_certificate_file: certificate } = identity;
  if (type === "spiffe") return token === undefined;
  return type === "tls-client-auth" && certificate === undefined;
}

/** Keys of the identity at `path` that the chosen type does not read. Files of the Go program have them. */
export function unusedIdentityKeys(
  config: ClientIdentityConfig,
  path: ConfigProblem["path"],
): ConfigProblem[] {
  const { required, optional } = keysOfType[config.type];
  const read: ReadonlySet<string> = new Set([...required, ...optional]);
  const known = Object.values(keysOfType).flatMap((keys) => [...keys.required, ...keys.optional]);
  const ofOthers = [...new Set(known)].filter((key) => !read.has(key) && config[key] !== undefined);
  const beside = (["client_id", "client_secret"] as const).filter(
    (key) => config[key] !== undefined && config[`${key}_file`] !== undefined,
  );
  return [
    ...ofOthers.map((key) => ({
      path: [...path, key],
      message: `has no effect with identity.type ${config.type}`,
    })),
    ...beside.map((key) => ({
      path: [...path, `${key}_file`],
      message: `has no effect beside ${key}`,
    })),
  ];
}
