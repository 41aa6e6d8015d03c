/** The client that this proxy is at the token endpoint: its id and its proof, inline or from files that rotate. */
import { existsSync } from "node:fs";
import { z } from "zod";
import {
  certificateThumbprint,
  readSigningKey,
  signAssertion,
} from "../../oauth/client-assertion.ts";
import type { ClientAuthentication } from "../../oauth/client-authentication.ts";
import { signatureAlgorithms } from "../../oauth/token-checks.ts";
import { unverifiedClaims } from "../../oauth/unverified-claims.ts";
import { PluginConfigError, type PluginDeps } from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";
import { words } from "../config-values.ts";
import { credentialText, WatchedFile } from "../../files/watched-file.ts";

/** Where the operator of the Go program mounts the agent's client id. */
export const defaultClientIdFile = "/shared/client-id.txt";

const defaultSecretFile = "/shared/client-secret.txt";

/** The schema of `identity` of a token-exchange entry. */
export const clientIdentityConfig = z
  .strictObject({
    type: z
      .enum(["client-secret", "spiffe", "private-key-jwt"])
      .describe(
        "client-secret: a shared secret. spiffe: a JWT-SVID as client assertion. private-key-jwt: a client assertion that is signed for each call with the key of signing_key_file (RFC 7523).",
      ),
    client_id: words()
      .optional()
      .describe(
        "Client id. With type spiffe it can be left out: the assertion then says who the client is (RFC 7521 section 4.2), as Keycloak's SPIFFE client authentication wants it.",
      ),
    client_id_file: words()
      .optional()
      .describe(
        `File with the client id, read again when it changes. Default: ${defaultClientIdFile}; with type spiffe only where that file exists.`,
      ),
    send_client_id: z
      .boolean()
      .default(true)
      .describe(
        "false: the form has no client_id beside the assertion (types spiffe and private-key-jwt).",
      ),
    client_secret: words().optional().describe("Client secret (type client-secret)."),
    client_secret_file: words()
      .optional()
      .describe(
        `File with the client secret, read again when it changes. Default: ${defaultSecretFile}.`,
      ),
    client_auth_method: z
      .enum(["client_secret_post", "client_secret_basic"])
      .default("client_secret_post")
      .describe("Whether the secret goes into the form or into a Basic Authorization field."),
    jwt_audience: words()
      .optional()
      .describe(
        "Audience that the JWT-SVID must have (type spiffe), or that the signed assertion gets (type private-key-jwt; default: the address of the token endpoint; Keycloak also takes the address of its realm).",
      ),
    jwt_svid_file: words()
      .optional()
      .describe("File with the JWT-SVID, read again when it changes (type spiffe)."),
    assertion_type: z
      .enum(["jwt-spiffe", "jwt-bearer"])
      .default("jwt-spiffe")
      .describe(
        "How the assertion is announced to the token endpoint (type spiffe; private-key-jwt is always jwt-bearer).",
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
  })
  .superRefine((identity, context) => {
    if (identity.type === "private-key-jwt" && identity.signing_key_file === undefined) {
      const message = "is required for identity.type private-key-jwt";
      context.addIssue({ code: "custom", path: ["signing_key_file"], message });
    }
    if (identity.type === "client-secret" && !identity.send_client_id) {
      const message =
        "has to be true for identity.type client-secret: a secret says nothing of whose it is";
      context.addIssue({ code: "custom", path: ["send_client_id"], message });
    }
    if (identity.type !== "spiffe") return;
    if (identity.jwt_audience === undefined) {
      const message = "is required for identity.type spiffe";
      context.addIssue({ code: "custom", path: ["jwt_audience"], message });
    }
    if (identity.jwt_svid_file === undefined) {
      const message =
        "spiffe Workload API is not available in this version; set identity.jwt_svid_file";
      context.addIssue({ code: "custom", path: ["jwt_svid_file"], message });
    }
  });

/** A checked `identity`. */
export type ClientIdentityConfig = z.output<typeof clientIdentityConfig>;

/** What an identity needs of its plugin's dependencies. */
export type IdentityDeps = Pick<PluginDeps, "clock" | "log">;

/** Something that may have a value now. */
type Current<T> = () => T | undefined;

/** What proves the client's identity: a text, or a key that makes one for each call. */
interface Proof {
  /** Compared by identity: another credential is another object. */
  readonly credential: object;
  readonly secret?: Secret;
  readonly sign?: (clientId: string, url: string) => Promise<Secret>;
}

/** Hands out the client's id and proof as they are at the moment. */
export class ClientIdentity {
  readonly #config: ClientIdentityConfig;
  readonly #deps: IdentityDeps;
  readonly #id: Current<string>;
  readonly #proof: Current<Proof>;
  readonly #isIdOptional: boolean;
  readonly #problems: (() => string | undefined)[] = [];

  /** Throws {@link PluginConfigError} for a key file that is there and holds no usable key. */
  constructor(config: ClientIdentityConfig, deps: IdentityDeps) {
    this.#config = config;
    this.#deps = deps;
    warnOfUnused(config, deps);
    const { client_id: id, client_id_file: idFile, type } = config;
    this.#isIdOptional = type === "spiffe" && id === undefined && idFile === undefined;
    this.#id =
      id === undefined
        ? this.#file(idFile ?? defaultClientIdFile, credentialText, this.#isIdOptional)
        : () => id;
    if (type === "spiffe") this.#proof = this.#assertion();
    else if (type === "private-key-jwt") this.#proof = this.#signer();
    else this.#proof = this.#secret();
  }

  /** True, or why there are no credentials to show yet. */
  ready(): true | string {
    const hasId = this.#isIdOptional || this.#id() !== undefined;
    if (hasId && this.#proof() !== undefined) return true;
    const problem = this.#problems.map((ask) => ask()).find((text) => text !== undefined);
    return `credentials pending (${problem ?? "not read yet"})`;
  }

  /** The id, for cache keys. */
  clientId(): string | undefined {
    return this.#id();
  }

  /** The credential as it is now, to be compared by identity only: a file that was read again gives another. */
  credential(): object | undefined {
    return this.#proof()?.credential;
  }

  /** Id and proof; undefined while {@link ready} is not true. */
  authentication(): ClientAuthentication | undefined {
    const clientId = this.#id();
    const proof = this.#proof();
    if (proof === undefined || (clientId === undefined && !this.#isIdOptional)) return undefined;
    const { type, client_auth_method: method, send_client_id: isSent } = this.#config;
    const { secret, sign } = proof;
    const sent = clientId === undefined || !isSent ? {} : { clientId };
    if (sign !== undefined) {
      const assertion = (url: string): Promise<Secret> => sign(clientId ?? "", url);
      return { method: "client_assertion", ...sent, assertion, assertionType: "jwt-bearer" };
    }
    if (secret === undefined) return undefined;
    if (type === "spiffe") {
      const { assertion_type: assertionType } = this.#config;
      return { method: "client_assertion", ...sent, assertion: secret, assertionType };
    }
    return { method, clientId: clientId ?? "", clientSecret: secret };
  }

  #secret(): Current<Proof> {
    const { client_secret: inline, client_secret_file: path = defaultSecretFile } = this.#config;
    if (inline === undefined) return this.#file(path, (text) => proofOf(credentialText(text)));
    const proof = proofOf(inline);
    return () => proof;
  }

  #assertion(): Current<Proof> {
    const { jwt_svid_file: path = "", jwt_audience: audience = "" } = this.#config;
    const svid = this.#file(path, (text) => readAssertion(credentialText(text), audience));
    let problem: string | undefined;
    this.#problems.push(() => problem);
    return () => {
      const current = svid();
      const hasEnded = current !== undefined && current.endsAt <= this.#deps.clock.now();
      problem = hasEnded ? `${path}: the JWT-SVID has expired` : undefined;
      return hasEnded ? undefined : current?.proof;
    };
  }

  #signer(): Current<Proof> {
    const {
      signing_key_file: path = "",
      signing_key_id: keyId,
      signing_algorithm: algorithm,
      signing_certificate_file: certificatePath,
      jwt_audience: audience,
    } = this.#config;
    const { clock } = this.#deps;
    const certificate =
      certificatePath === undefined
        ? undefined
        : this.#file(certificatePath, certificateThumbprint);
    const key = this.#file(path, (text): Proof => {
      const read = readSigningKey(credentialText(text), algorithm);
      const signing = keyId === undefined ? read : { ...read, keyId };
      return {
        credential: signing,
        sign: (clientId, url) => {
          const thumbprint = certificate?.();
          return signAssertion(signing, { clientId, audience: audience ?? url, thumbprint }, clock);
        },
      };
    });
    this.#refuseUnusable("signing_key_file", key);
    if (certificate !== undefined) this.#refuseUnusable("signing_certificate_file", certificate);
    return () => (certificate !== undefined && certificate() === undefined ? undefined : key());
  }

  /** A file that is not there may still come; one that holds something else is a mistake of the operator. */
  #refuseUnusable(key: keyof ClientIdentityConfig, current: Current<unknown>): void {
    const path = this.#config[key];
    if (typeof path !== "string" || current() !== undefined || !existsSync(path)) return;
    const problem = this.#problems.map((ask) => ask()).find((text) => text?.startsWith(`${path}:`));
    const message = problem ?? `${path} cannot be used`;
    throw new PluginConfigError([{ path: ["identity", key], message }]);
  }

  #file<T>(path: string, parse: (text: string) => T, isOptional = false): Current<T> {
    const file = new WatchedFile<T>({
      path,
      clock: this.#deps.clock,
      parse,
      onProblem: (problem, isMissing) => {
        if (isMissing && isOptional) return;
        this.#deps.log.warn({ problem }, "credential file not usable");
      },
    });
    if (!isOptional) this.#problems.push(() => file.problem);
    return () => file.current();
  }
}

interface Assertion {
  readonly proof: Proof;
  /** Milliseconds since the epoch. */
  readonly endsAt: number;
}

function proofOf(text: string): Proof {
  const secret = new Secret(text);
  return { credential: secret, secret };
}

/** An assertion for somebody else must not be shown to the token endpoint: it could be replayed there. */
function readAssertion(text: string, audience: string): Assertion {
  const claims = unverifiedClaims(text);
  if (claims === undefined) throw new Error("it is not a JWT");
  if (!claims.audience.includes(audience)) {
    throw new Error(`the JWT-SVID is not for audience ${audience}`);
  }
  const { expiresAt = Number.POSITIVE_INFINITY } = claims;
  return { proof: proofOf(text), endsAt: expiresAt * 1000 };
}

/** Keys that only one type reads. */
const keysOfType = {
  "client-secret": ["client_secret", "client_secret_file"],
  spiffe: ["jwt_svid_file", "jwt_audience"],
  "private-key-jwt": [
    "signing_key_file",
    "signing_key_id",
    "signing_algorithm",
    "signing_certificate_file",
    "jwt_audience",
  ],
} as const satisfies Readonly<
  Record<ClientIdentityConfig["type"], readonly (keyof ClientIdentityConfig)[]>
>;

/** Files of the Go program carry keys that its own choice leaves unread; they load here with a word about it. */
function warnOfUnused(config: ClientIdentityConfig, deps: IdentityDeps): void {
  const read: ReadonlySet<string> = new Set(keysOfType[config.type]);
  const unused = new Set<string>();
  for (const key of Object.values(keysOfType).flat())
    if (!read.has(key) && config[key] !== undefined) unused.add(key);
  for (const key of ["client_id", "client_secret"] as const)
    if (config[key] !== undefined && config[`${key}_file`] !== undefined) unused.add(`${key}_file`);
  if (unused.size > 0) {
    const keys = [...unused];
    deps.log.warn({ keys, type: config.type }, "identity keys that have no effect");
  }
}
