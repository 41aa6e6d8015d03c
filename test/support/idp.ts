/**
 * A stub identity provider on loopback: key set, discovery document and token endpoint, each with failures to order.
 *
 * It lets whatever it is told happen and records what it was asked; it is no authorization server.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import {
  exportJWK,
  generateKeyPair,
  SignJWT,
  type CryptoKey,
  type JWK,
  type JWTPayload,
} from "jose";
import { ProxyError } from "../../src/errors.ts";
import type { OperatorFetch } from "../../src/pipeline/plugin.ts";

/** What the token endpoint was asked. */
export interface TokenCall {
  readonly form: URLSearchParams;
  readonly authorization: string | undefined;
  /** The proof that came with it (RFC 9449). */
  readonly dpop: string | undefined;
  readonly path: string;
}

/** An answer to order: a whole one, one that never comes, or a connection that breaks. */
export type IdpReply =
  | {
      readonly status?: number;
      readonly body: unknown;
      readonly headers?: Readonly<Record<string, string>>;
    }
  | "hang"
  | "reset";

/** Claims and header of a token that differ from the usual ones. */
export interface TokenShape {
  readonly claims?: JWTPayload;
  readonly header?: Readonly<Record<string, unknown>>;
  /** Leaves these claims out. */
  readonly without?: readonly string[];
}

interface SigningKey {
  readonly privateKey: CryptoKey;
  readonly jwk: JWK;
}

async function makeKey(kid: string, alg: string): Promise<SigningKey> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  return { privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig" } };
}

/** One identity provider with one realm. */
export class StubIdp {
  readonly tokenCalls: TokenCall[] = [];
  jwksCalls = 0;
  /** Answers that the token endpoint gives first, in order. */
  readonly tokenReplies: IdpReply[] = [];
  /** Answers that the key set and the discovery document give first, in order. */
  readonly jwksReplies: IdpReply[] = [];
  /** Makes the usual answer of the token endpoint. */
  issue: (call: TokenCall) => unknown = ({ form }) => ({
    access_token: `exchanged-${form.get("audience") ?? ""}`,
    token_type: "Bearer",
    expires_in: 300,
  });
  /** What the token endpoint answers instead, where that is anything. */
  refuse: (call: TokenCall) => IdpReply | undefined = () => undefined;
  /** Held back answers of the token endpoint, while set. */
  gate: Promise<void> | undefined;
  #keys: SigningKey[];
  #keyCounter = 1;
  readonly #server: Server;

  private constructor(server: Server, key: SigningKey) {
    this.#server = server;
    this.#keys = [key];
    server.on("request", (request, response) => void this.#answer(request, response));
  }

  static async start(): Promise<StubIdp> {
    const idp = new StubIdp(createServer(), await makeKey("key-1", "ES256"));
    await new Promise<void>((resolve) => idp.#server.listen(0, "127.0.0.1", resolve));
    return idp;
  }

  get origin(): string {
    const { port } = this.#server.address() as AddressInfo;
    return `http://127.0.0.1:${port}`;
  }

  get issuer(): string {
    return `${this.origin}/realms/test`;
  }

  get tokenUrl(): string {
    return `${this.issuer}/protocol/openid-connect/token`;
  }

  get jwksUrl(): string {
    return `${this.issuer}/protocol/openid-connect/certs`;
  }

  /** The newest key's public half. */
  get publicJwk(): JWK {
    return this.#newest.jwk;
  }

  get #newest(): SigningKey {
    const key = this.#keys.at(-1);
    if (key === undefined) throw new Error("no key");
    return key;
  }

  /** Signs with a new key from now on; the old ones stay published when `keepOld`. */
  async rotate(
    options: { readonly keepOld?: boolean; readonly alg?: string; readonly kid?: string } = {},
  ): Promise<void> {
    this.#keyCounter += 1;
    const kid = options.kid ?? `key-${this.#keyCounter}`;
    const key = await makeKey(kid, options.alg ?? "ES256");
    this.#keys = options.keepOld === true ? [...this.#keys, key] : [key];
  }

  /** A token of this issuer for audience `agent`, good for five minutes from `now` (milliseconds). */
  async token(shape: TokenShape = {}, now: number = Date.now()): Promise<string> {
    const { privateKey, jwk } = this.#newest;
    const seconds = Math.floor(now / 1000);
    const claims: JWTPayload = {
      iss: this.issuer,
      sub: "alice",
      aud: "agent",
      azp: "frontend",
      scope: "openid profile",
      iat: seconds,
      exp: seconds + 300,
      ...shape.claims,
    };
    for (const claim of shape.without ?? []) delete claims[claim];
    return new SignJWT(claims)
      .setProtectedHeader({ alg: jwk.alg ?? "", kid: jwk.kid ?? "", typ: "JWT", ...shape.header })
      .sign(privateKey);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? "";
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    if (path.endsWith("/certs")) {
      this.jwksCalls += 1;
      reply(
        response,
        this.jwksReplies.shift() ?? { body: { keys: this.#keys.map((key) => key.jwk) } },
      );
    } else if (path.endsWith("/.well-known/openid-configuration")) {
      const body = { issuer: this.issuer, jwks_uri: this.jwksUrl };
      reply(response, this.jwksReplies.shift() ?? { body });
    } else {
      const form = new URLSearchParams(Buffer.concat(chunks).toString("utf8"));
      const { authorization } = request.headers;
      const dpop = request.headersDistinct["dpop"]?.join();
      const call = { form, authorization, dpop, path };
      this.tokenCalls.push(call);
      await this.gate;
      reply(response, this.tokenReplies.shift() ?? this.refuse(call) ?? { body: this.issue(call) });
    }
  }
}

function reply(response: ServerResponse, answer: IdpReply): void {
  if (answer === "hang") return;
  if (answer === "reset") {
    response.destroy();
    return;
  }
  const { status = 200, body, headers = { "content-type": "application/json" } } = answer;
  response.writeHead(status, headers);
  response.end(typeof body === "string" ? body : JSON.stringify(body));
}

/** What app/ gives to plugins, over the platform's fetch: bounded, timed, without redirects. */
export const loopbackFetch: OperatorFetch = async (url, request = {}) => {
  const { method = "GET", headers = {}, body, signal, timeoutMs = 30_000 } = request;
  const { maxBytes = 1024 * 1024 } = request;
  const timeout = AbortSignal.timeout(timeoutMs);
  let response: Response;
  let bytes: Buffer;
  try {
    response = await fetch(url, {
      method,
      headers,
      redirect: "manual",
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
      ...(body === undefined ? {} : { body }),
    });
    bytes = Buffer.from(await response.arrayBuffer());
  } catch (error) {
    const code = timeout.aborted ? "upstream.timeout" : "upstream.refused";
    throw new ProxyError(code, "the service did not answer", { cause: error });
  }
  if (bytes.length > maxBytes) {
    throw new ProxyError("upstream.response-too-large", "the answer is too large");
  }
  return { status: response.status, headers: Object.fromEntries(response.headers), body: bytes };
};
