/** A provider of secrets on loopback that takes what its documentation says and refuses everything else. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { createPublicKey, type KeyObject } from "node:crypto";
import { jwtVerify, type JWTPayload } from "jose";
import type { ServerCertificate } from "./certs.ts";

/** A call that arrived. */
export interface ProviderCall {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
  /** The body as a form. */
  readonly form: URLSearchParams;
  /** The body as JSON. */
  json(): Readonly<Record<string, unknown>>;
}

/** What is answered: JSON with a status, a text as it is, or nothing at all. */
export type ProviderReply = readonly [status: number, body: unknown] | "hang" | "reset";

/** Answers calls of one path. */
export type Handler = (call: ProviderCall) => ProviderReply | Promise<ProviderReply>;

/** One provider. */
export class StubProvider {
  readonly calls: ProviderCall[] = [];
  /** Takes the place of every answer while it is set. */
  instead: ProviderReply | undefined;
  readonly #handlers = new Map<string, Handler>();
  readonly #server: Server;

  readonly #scheme: string;

  private constructor(server: Server, scheme: string) {
    this.#server = server;
    this.#scheme = scheme;
    server.on("request", (request, response) => void this.#serve(request, response));
  }

  /** With a certificate it speaks TLS. */
  static async start(certificate?: ServerCertificate): Promise<StubProvider> {
    const server = certificate === undefined ? createServer() : createTlsServer(certificate);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new StubProvider(server, certificate === undefined ? "http" : "https");
  }

  get url(): string {
    return `${this.#scheme}://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** `at` is a method and a path. */
  on(at: string, handler: Handler): void {
    this.#handlers.set(at, handler);
  }

  /** How often that was asked for. */
  count(at: string): number {
    return this.calls.filter(({ method, path }) => `${method} ${path}` === at).length;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString("utf8");
    const call: ProviderCall = {
      method: request.method ?? "",
      path: request.url ?? "",
      headers: request.headers,
      body,
      form: new URLSearchParams(body),
      json: () => JSON.parse(body) as Readonly<Record<string, unknown>>,
    };
    this.calls.push(call);
    const handler = this.#handlers.get(`${call.method} ${call.path}`);
    const reply = this.instead ?? (await answerOf(handler, call));
    if (reply === "hang") return;
    if (reply === "reset") {
      response.destroy();
      return;
    }
    const [status, text] = reply;
    response.writeHead(status, { "content-type": "application/json" });
    response.end(typeof text === "string" ? text : JSON.stringify(text));
  }
}

/** What a handler does not expect is a fault of the provider, which whoever asked it will tell. */
async function answerOf(handler: Handler | undefined, call: ProviderCall): Promise<ProviderReply> {
  if (handler === undefined) return [404, { message: "Not Found" }];
  try {
    return await handler(call);
  } catch (error) {
    return [500, { message: String(error) }];
  }
}

/** The claims of an RS256 JWT that this key signed, or why it is refused. */
export async function signedBy(token: string, key: KeyObject): Promise<JWTPayload> {
  const { payload } = await jwtVerify(token, createPublicKey(key), { algorithms: ["RS256"] });
  return payload;
}
