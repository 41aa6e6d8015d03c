/** The client that this proxy is at the token endpoint: its id and its proof, inline or from files that rotate. */
import { z } from "zod";
import type { ClientAuthentication } from "../../oauth/client-authentication.ts";
import { unverifiedClaims } from "../../oauth/unverified-claims.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";
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
      .enum(["client-secret", "spiffe"])
      .describe("client-secret: a shared secret. spiffe: a JWT-SVID as client assertion."),
    client_id: words().optional().describe("Client id."),
    client_id_file: words()
      .optional()
      .describe(
        `File with the client id, read again when it changes. Default: ${defaultClientIdFile}.`,
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
      .describe("Audience that the JWT-SVID must have (type spiffe)."),
    jwt_svid_file: words()
      .optional()
      .describe("File with the JWT-SVID, read again when it changes (type spiffe)."),
    assertion_type: z
      .enum(["jwt-spiffe", "jwt-bearer"])
      .default("jwt-spiffe")
      .describe("How the assertion is announced to the token endpoint."),
  })
  .superRefine((identity, context) => {
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

/** Something that may have a value now. */
type Current<T> = () => T | undefined;

/** Hands out the client's id and proof as they are at the moment. */
export class ClientIdentity {
  readonly #config: ClientIdentityConfig;
  readonly #deps: PluginDeps;
  readonly #id: Current<string>;
  readonly #proof: Current<Secret>;
  readonly #problems: (() => string | undefined)[] = [];

  constructor(config: ClientIdentityConfig, deps: PluginDeps) {
    this.#config = config;
    this.#deps = deps;
    warnOfUnused(config, deps);
    const { client_id: id, client_secret: secret } = config;
    this.#id =
      id === undefined
        ? this.#file(config.client_id_file ?? defaultClientIdFile, credentialText)
        : () => id;
    if (config.type === "spiffe") {
      this.#proof = this.#assertion();
    } else if (secret !== undefined) {
      const inline = new Secret(secret);
      this.#proof = () => inline;
    } else {
      const path = config.client_secret_file ?? defaultSecretFile;
      this.#proof = this.#file(path, (text) => new Secret(credentialText(text)));
    }
  }

  /** True, or why there are no credentials to show yet. */
  ready(): true | string {
    if (this.#id() !== undefined && this.#proof() !== undefined) return true;
    const problem = this.#problems.map((ask) => ask()).find((text) => text !== undefined);
    return `credentials pending (${problem ?? "not read yet"})`;
  }

  /** The id, for cache keys. */
  clientId(): string | undefined {
    return this.#id();
  }

  /** The credential as it is now, to be compared by identity only: a file that was read again gives another. */
  proof(): object | undefined {
    return this.#proof();
  }

  /** Id and proof; undefined while {@link ready} is not true. */
  authentication(): ClientAuthentication | undefined {
    const clientId = this.#id();
    const proof = this.#proof();
    if (clientId === undefined || proof === undefined) return undefined;
    if (this.#config.type === "client-secret") {
      return { method: this.#config.client_auth_method, clientId, clientSecret: proof };
    }
    const { assertion_type: assertionType } = this.#config;
    return { method: "client_assertion", clientId, assertion: proof, assertionType };
  }

  #assertion(): Current<Secret> {
    const { jwt_svid_file: path = "", jwt_audience: audience = "" } = this.#config;
    const svid = this.#file(path, (text) => readAssertion(credentialText(text), audience));
    let problem: string | undefined;
    this.#problems.push(() => problem);
    return () => {
      const current = svid();
      const hasEnded = current !== undefined && current.endsAt <= this.#deps.clock.now();
      problem = hasEnded ? `${path}: the JWT-SVID has expired` : undefined;
      return hasEnded ? undefined : current?.assertion;
    };
  }

  #file<T>(path: string, parse: (text: string) => T): Current<T> {
    const file = new WatchedFile<T>({
      path,
      clock: this.#deps.clock,
      parse,
      onProblem: (problem) => this.#deps.log.warn({ problem }, "credential file not usable"),
    });
    this.#problems.push(() => file.problem);
    return () => file.current();
  }
}

interface Assertion {
  readonly assertion: Secret;
  /** Milliseconds since the epoch. */
  readonly endsAt: number;
}

/** An assertion for somebody else must not be shown to the token endpoint: it could be replayed there. */
function readAssertion(text: string, audience: string): Assertion {
  const claims = unverifiedClaims(text);
  if (claims === undefined) throw new Error("it is not a JWT");
  if (!claims.audience.includes(audience)) {
    throw new Error(`the JWT-SVID is not for audience ${audience}`);
  }
  const { expiresAt = Number.POSITIVE_INFINITY } = claims;
  return { assertion: new Secret(text), endsAt: expiresAt * 1000 };
}

/** Files of the Go program carry keys that its own choice leaves unread; they load here with a word about it. */
function warnOfUnused(config: ClientIdentityConfig, deps: PluginDeps): void {
  const unused: string[] = [];
  if (config.client_id !== undefined && config.client_id_file !== undefined)
    unused.push("client_id_file");
  const isSpiffe = config.type === "spiffe";
  if (isSpiffe && config.client_secret !== undefined) unused.push("client_secret");
  if (config.client_secret_file !== undefined && (isSpiffe || config.client_secret !== undefined)) {
    unused.push("client_secret_file");
  }
  if (!isSpiffe && config.jwt_audience !== undefined) unused.push("jwt_audience");
  if (!isSpiffe && config.jwt_svid_file !== undefined) unused.push("jwt_svid_file");
  if (unused.length > 0) {
    deps.log.warn({ keys: unused, type: config.type }, "identity keys that have no effect");
  }
}
