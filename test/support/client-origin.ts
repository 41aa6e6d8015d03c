/** One origin for foreign HTTP clients, over http and https (both versions of HTTP): what its paths do is the same on both. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createSecureServer, type Http2SecureServer } from "node:http2";
import { type AddressInfo, type Socket } from "node:net";
import type { ServerCertificate } from "./certs.ts";

const large = Buffer.alloc(20_000_000, "a body of twenty million bytes ");
const hashOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** What clients send to `/hash`, and what they are to make of `/large`. */
export const uploadHash = hashOf(Uint8Array.from({ length: 5_000_000 }, (_, index) => index % 251));
export const largeHash = hashOf(large);

/** Two ports with the same paths. */
export class ClientOrigin {
  readonly #http: Server;
  readonly #https: Http2SecureServer;
  readonly #sockets = new Set<Socket>();

  private constructor(certificate: ServerCertificate) {
    this.#http = createServer(answer);
    this.#https = createSecureServer({ ...certificate, allowHTTP1: true });
    this.#https.on("request", (request: unknown, response: unknown) => {
      // The compatibility interface of http2 is the same as far as this goes.
      answer(request as IncomingMessage, response as ServerResponse);
    });
    for (const server of [this.#http, this.#https]) {
      server.on("connection", (socket: Socket) => {
        this.#sockets.add(socket);
        socket.once("close", () => this.#sockets.delete(socket));
        socket.on("error", () => undefined);
      });
    }
    this.#https.on("sessionError", () => undefined);
  }

  static async start(certificate: ServerCertificate): Promise<ClientOrigin> {
    const origin = new ClientOrigin(certificate);
    for (const server of [origin.#http, origin.#https])
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
    return origin;
  }

  get ports(): { readonly http: number; readonly https: number } {
    const portOf = (server: Server | Http2SecureServer): number =>
      (server.address() as AddressInfo).port;
    return { http: portOf(this.#http), https: portOf(this.#https) };
  }

  close(): void {
    this.#http.close();
    this.#https.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  request.on("error", () => undefined);
  response.on("error", () => undefined);
  const { url = "" } = request;
  if (url === "/hello") response.end("hello");
  else if (url === "/large") {
    response.setHeader("content-length", large.length);
    response.end(large);
  } else if (url === "/early") {
    // Before anything of the body was read.
    response.writeHead(413).end("too much");
  } else if (url === "/hash") {
    const hash = createHash("sha256");
    request.on("data", (chunk: Buffer) => hash.update(chunk));
    request.on("end", () => response.end(hash.digest("hex")));
  } else if (url === "/events") {
    response.setHeader("content-type", "text/event-stream");
    const timer = setInterval(() => response.write("data: more\n\n"), 10);
    response.once("close", () => clearInterval(timer));
  } else response.writeHead(404).end();
}
