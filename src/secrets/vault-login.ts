/** The token of a Vault or OpenBao server: how it is had, and renewed before it ends. */
import { fileProblem, readSmallFile } from "../files/watched-file.ts";
import type { Clock } from "../duration.ts";
import { type JsonObject, numberOf, objectOf } from "../http/json-access.ts";
import type { OperatorFetch, TrustedAuthorities } from "../http/operator-fetch.ts";
import { Secret } from "../secret.ts";
import { askProvider, type ProviderAnswer, secretOf } from "./provider-call.ts";
import { unavailable } from "./secret-source.ts";

/** How this program shows the server who it is. Files are read at every login: they rotate. */
export type VaultAuth =
  | {
      readonly method: "kubernetes" | "jwt";
      readonly mount: string;
      readonly role: string;
      readonly jwtFile: string;
    }
  | {
      readonly method: "approle";
      readonly mount: string;
      readonly roleId: string;
      readonly secretIdFile: string | undefined;
    }
  | { readonly method: "token"; readonly tokenFile: string };

/** One server, and who asks it. */
export interface VaultServer {
  /** Without a slash at its end. */
  readonly address: string;
  readonly namespace: string | undefined;
  readonly auth: VaultAuth;
  /** Absent: what the file trusts. Throws ProxyError where they cannot be read. */
  readonly authorities?: ((this: void) => TrustedAuthorities) | undefined;
  readonly clock: Clock;
}

/** One call of the server. */
export interface VaultCall {
  readonly call: OperatorFetch;
  readonly signal: AbortSignal;
}

/** A question to the server, below `/v1/`. */
interface VaultQuestion {
  readonly path: string;
  readonly method?: "GET" | "POST";
  readonly body?: JsonObject;
  readonly token?: Secret;
}

interface Login {
  readonly token: Secret;
  readonly since: number;
  /** Undefined: the token has no end. */
  readonly endsAt: number | undefined;
  readonly isRenewable: boolean;
}

const maxFileBytes = 64 * 1024;
const forbidden = 403;
const notFound = 404;

/** The token that several sources of one server share. */
export class VaultLogin {
  readonly #server: VaultServer;
  #login: Login | undefined;
  #flight: Promise<Login> | undefined;

  constructor(server: VaultServer) {
    this.#server = server;
  }

  /** Asks with the token; once more with a new one where the server no longer takes the first. 404 is left to the caller. */
  async ask(by: VaultCall, question: Omit<VaultQuestion, "token">): Promise<ProviderAnswer> {
    const { token } = await this.#current(by);
    const first = await this.#send(by, { ...question, token }, [forbidden, notFound]);
    if (first.status !== forbidden) return first;
    // A token that was revoked, or a policy that does not let it read: only a new token tells.
    if (this.#login?.token === token) this.#login = undefined;
    const again = await this.#current(by);
    return this.#send(by, { ...question, token: again.token }, [notFound]);
  }

  async #current(by: VaultCall): Promise<Login> {
    const login = this.#login;
    const now = this.#server.clock.now();
    if (login !== undefined) {
      const { since, endsAt } = login;
      if (endsAt === undefined || now < since + (endsAt - since) / 2) return login;
    }
    this.#flight ??= this.#renewed(by).finally(() => {
      this.#flight = undefined;
    });
    this.#login = await this.#flight;
    return this.#login;
  }

  async #renewed(by: VaultCall): Promise<Login> {
    const login = this.#login;
    const { clock } = this.#server;
    if (login?.isRenewable === true && (login.endsAt ?? 0) > clock.now()) {
      const since = clock.now();
      const question = {
        path: "auth/token/renew-self",
        method: "POST",
        token: login.token,
      } as const;
      const { status, fields } = await this.#send(by, question, [400, forbidden]);
      const auth = objectOf(fields["auth"]);
      const seconds = numberOf(auth["lease_duration"]) ?? 0;
      // At the end of its longest life it is renewed for less and less.
      const before = ((login.endsAt ?? since) - login.since) / 1000;
      if (status < 300 && seconds > before / 2)
        return { ...login, since, endsAt: since + seconds * 1000 };
    }
    return this.#begin(by);
  }

  async #begin(by: VaultCall): Promise<Login> {
    const { auth, clock } = this.#server;
    const since = clock.now();
    if (auth.method === "token") return this.#lookUp(by, await fileSecret(auth.tokenFile), since);
    const body = await credentialsOf(auth);
    const path = `auth/${auth.mount}/login`;
    const { fields } = await this.#send(by, { path, method: "POST", body });
    const given = objectOf(fields["auth"]);
    const seconds = numberOf(given["lease_duration"]) ?? 0;
    return {
      token: secretOf(given["client_token"], "auth.client_token"),
      since,
      endsAt: seconds > 0 ? since + seconds * 1000 : undefined,
      isRenewable: given["renewable"] === true,
    };
  }

  /** A token that somebody else made. Its file may have a newer one when it has ended. */
  async #lookUp(by: VaultCall, token: Secret, since: number): Promise<Login> {
    const { fields } = await this.#send(by, { path: "auth/token/lookup-self", token });
    const data = objectOf(fields["data"]);
    const seconds = numberOf(data["ttl"]) ?? 0;
    return {
      token,
      since,
      endsAt: seconds > 0 ? since + seconds * 1000 : undefined,
      isRenewable: data["renewable"] === true,
    };
  }

  async #send(
    { call, signal }: VaultCall,
    { path, token, ...question }: VaultQuestion,
    also: readonly number[] = [],
  ): Promise<ProviderAnswer> {
    const { address, namespace, authorities } = this.#server;
    const headers = {
      "x-vault-request": "true",
      ...(namespace === undefined ? {} : { "x-vault-namespace": namespace }),
      ...(token === undefined ? {} : { "x-vault-token": token.reveal() }),
    };
    const url = `${address}/v1/${path}`;
    const asked = { url, headers, signal, authorities: authorities?.(), ...question };
    return askProvider(call, asked, also);
  }
}

async function credentialsOf(auth: Exclude<VaultAuth, { method: "token" }>): Promise<JsonObject> {
  if (auth.method === "approle") {
    const { roleId, secretIdFile } = auth;
    const secretId = secretIdFile === undefined ? undefined : await fileSecret(secretIdFile);
    return { role_id: roleId, ...(secretId && { secret_id: secretId.reveal() }) };
  }
  return { role: auth.role, jwt: (await fileSecret(auth.jwtFile)).reveal() };
}

async function fileSecret(path: string): Promise<Secret> {
  let text: string;
  try {
    text = readSmallFile(path, maxFileBytes).trim();
  } catch (error) {
    throw unavailable(fileProblem(path, error), error);
  }
  if (text === "") throw unavailable(`${path}: the file is empty`);
  return new Secret(text);
}
