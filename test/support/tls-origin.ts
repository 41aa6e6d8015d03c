/** Origins that speak HTTPS on loopback and remember everything that reached them. */
import { createServer as createHttps } from "node:https";
import { createSecureServer, type Http2SecureServer } from "node:http2";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Server as HttpsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { ServerCertificate } from "./certs.ts";

/** A request as an origin saw it. */
export interface Seen {
  readonly method: string;
  readonly url: string;
  readonly host: string;
  readonly httpVersion: string;
  readonly headers: IncomingMessage["headers"];
  /** Empty until the body has come. */
  body: Buffer;
  trailers: IncomingMessage["trailers"];
  /** The client gave up before the end. */
  isAborted: boolean;
}

/** Answers one request; the body has been read when `seen.body` is asked for in `whenRead`. */
export type Handler = (
  request: IncomingMessage,
  response: ServerResponse,
  seen: Seen,
) => void | Promise<void>;

/** What an origin speaks. */
export type Protocols = "http/1.1" | "h2" | "both";

/** An HTTPS server. */
export class TlsOrigin {
  readonly seen: Seen[] = [];
  /** TCP connections that were ever accepted. */
  accepted = 0;
  readonly server: HttpsServer | Http2SecureServer;
  readonly #sockets = new Set<Socket>();
  readonly #handlers = new Map<string, Handler>();

  private constructor(server: HttpsServer | Http2SecureServer) {
    this.server = server;
    server.on("connection", (socket: Socket) => {
      this.accepted += 1;
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    const onRequest = (request: unknown, response: unknown): void => {
      // The compatibility interface of http2 is the same as far as these tests use it.
      void this.#answer(request as IncomingMessage, response as ServerResponse);
    };
    server.on("request", onRequest);
    server.on("checkContinue", onRequest);
    server.on("tlsClientError", () => undefined);
    server.on("sessionError", () => undefined);
  }

  static async start(
    certificate: ServerCertificate,
    protocols: Protocols = "http/1.1",
  ): Promise<TlsOrigin> {
    const server =
      protocols === "http/1.1"
        ? createHttps({ ...certificate, ALPNProtocols: ["http/1.1"] })
        : createSecureServer({
            ...certificate,
            allowHTTP1: protocols === "both",
            settings: { enableConnectProtocol: true },
          });
    const origin = new TlsOrigin(server);
    await new Promise<void>((resolve) => {
      server.listen(0, "127.0.0.1", resolve);
    });
    return origin;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** Name and port, as clients ask for it. */
  at(host: string): string {
    return `${host}:${this.port}`;
  }

  /** Answers a path in its own way; the default is 200 with OK-SECRET. */
  on(path: string, handler: Handler): void {
    this.#handlers.set(path, handler);
  }

  /** Requests for a path, query ignored. */
  requestsFor(path: string): Seen[] {
    return this.seen.filter(({ url }) => url.split("?")[0] === path);
  }

  get openSockets(): number {
    return this.#sockets.size;
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const authority = request.headers[":authority"];
    const seen: Seen = {
      method: request.method ?? "",
      url: request.url ?? "",
      host: request.headers.host ?? (typeof authority === "string" ? authority : ""),
      httpVersion: request.httpVersion,
      headers: request.headers,
      body: Buffer.alloc(0),
      trailers: {},
      isAborted: false,
    };
    this.seen.push(seen);
    request.on("error", () => undefined);
    request.on("aborted", () => {
      seen.isAborted = true;
    });
    response.on("error", () => undefined);
    response.on("close", () => {
      if (!response.writableFinished) seen.isAborted = true;
    });
    const handler = this.#handlers.get(seen.url.split("?")[0] ?? "");
    if (handler !== undefined) {
      await handler(request, response, seen);
      return;
    }
    await readAll(request, seen);
    response.setHeader("content-type", "text/plain");
    response.end("OK-SECRET");
  }
}

/** Reads the request body and trailers into `seen`. */
export async function readAll(request: IncomingMessage, seen: Seen): Promise<Buffer> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of request) chunks.push(chunk as Buffer);
  } catch {
    seen.isAborted = true;
  }
  seen.body = Buffer.concat(chunks);
  seen.trailers = request.trailers;
  return seen.body;
}
