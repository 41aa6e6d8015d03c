/** The small HTTP server that every operator surface is: a few GET routes, strict limits, and no way to hurt traffic. */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Evictions } from "../telemetry/evictions.ts";
import type { Logger } from "../telemetry/log.ts";
import { RareLog } from "../telemetry/rare-log.ts";
import { readPosted } from "./form.ts";
import { namesLoopback, parseTarget } from "./loopback.ts";
import { type NamedSecret, operatorOf, type RevealedSecret } from "./secrets.ts";
import { AdminConnections } from "./connections.ts";

/** What a route is asked. */
export interface AdminRequest {
  /** The rest of the path, decoded, where the route ends with "/". */
  readonly rest: string;
  readonly query: URLSearchParams;
  /** What an event stream's reader had last (HTML, "server-sent events"). */
  readonly lastEventId?: string;
  /** What was posted to a route that takes a form. */
  readonly form?: URLSearchParams;
  /** The same to a route that takes anything, and the fields of its head. */
  readonly raw?: string;
  readonly field?: (name: string) => string | undefined;
  /** Who asks, as far as a secret says it. */
  readonly operator?: string;
}

/** A whole response; a body in parts is written part by part, so that a long one blocks nothing. */
export interface AdminReply {
  readonly status: number;
  readonly contentType: string;
  readonly body: string | Iterable<string>;
  /** Fields that differ from those of every response. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Writes a response that stays open, and owns it from then on. */
export type AdminStream = (response: ServerResponse) => void;

/** The handler of a path. A path that ends with "/" (and is not "/") stands for everything below it. */
export interface AdminRoute {
  readonly path: string;
  /** The route is for POST with a form, and for nothing else. */
  readonly takesForm?: boolean;
  /** The form may be JSON. */
  readonly takesJson?: boolean;
  /** It gets what was posted as it came, whatever it is. */
  readonly takesRaw?: boolean;
  /** True where no secret is asked for. */
  readonly isOpen?: boolean;
  /** The secrets of single operators count also where something is posted. */
  readonly takesOperators?: boolean;
  handle(request: AdminRequest): AdminReply | AdminStream | Promise<AdminReply>;
}

/** A request whose route is known. */
interface Found extends Pick<AdminRequest, "rest" | "query"> {
  readonly route: AdminRoute;
  readonly operator: string | undefined;
}

/** Watches heads of requests until they are whole. */
export interface HeadWatch {
  add(socket: Socket): { ended(request: IncomingMessage): void };
}

/** What an {@link AdminServer} is made of. */
export interface AdminServerOptions {
  /** For the log: `health`, `stats`, `sessions`. */
  readonly name: string;
  readonly routes: readonly AdminRoute[];
  readonly log: Logger;
  /** Called for every connection that was closed because there were too many. */
  readonly evictions?: Pick<Evictions, "evicted">;
  /** Runs before a route is asked: what it shows may be that of other threads. */
  readonly before?: (() => Promise<void>) | undefined;
  /** Bounds what unfinished requests hold. */
  readonly heads?: HeadWatch;
  /** When given, requests need `Authorization: Bearer` with it. */
  readonly secret?: RevealedSecret | undefined;
  /** Operators with secrets of their own. */
  readonly operators?: readonly NamedSecret[];
  /** Origins whose web pages may read the responses; nobody when absent. */
  readonly corsOrigins?: readonly string[];
}

const maxConnections = 128;
const maxHeaderBytes = 16_384;
const requestTimeoutMs = 10_000;
/** Node looks for connections that are over their time this often; its own figure is 30 s. */
const timeoutCheckMs = 1_000;
const stalledWriteMs = 30_000;
const batchBytes = 65_536;
const fixedHeaders = {
  "Cache-Control": "no-store",
  "X-Content-Type-Options": "nosniff",
  "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
  "Referrer-Policy": "no-referrer",
} as const;

/** A JSON response. */
export function json(value: unknown, status = 200): AdminReply {
  return { status, contentType: "application/json", body: `${JSON.stringify(value)}\n` };
}

/** A JSON response that says what went wrong. */
export function failure(status: number, error: string, message: string): AdminReply {
  return json({ error, message }, status);
}

/** A plain text response. */
export function text(body: string, status = 200): AdminReply {
  return { status, contentType: "text/plain; charset=utf-8", body };
}

/** One bound operator surface. */
export class AdminServer {
  readonly #name: string;
  readonly #exact = new Map<string, AdminRoute>();
  readonly #below: AdminRoute[] = [];
  readonly #log: Logger;
  readonly #secret: RevealedSecret | undefined;
  readonly #operators: readonly NamedSecret[];
  readonly #corsOrigins: ReadonlySet<string>;
  readonly #before: AdminServerOptions["before"];
  readonly #server: Server;
  readonly #connections: AdminConnections;
  readonly #watched = new WeakMap<Socket, ReturnType<HeadWatch["add"]>>();
  #isLoopback = false;

  constructor(options: AdminServerOptions) {
    this.#name = options.name;
    this.#log = options.log;
    this.#secret = options.secret;
    this.#operators = options.operators ?? [];
    this.#before = options.before;
    const { name: server, evictions } = options;
    const rare = new RareLog(options.log);
    this.#connections = new AdminConnections(maxConnections, () =>
      evictions?.evicted("admin", rare, { server, connections: maxConnections }),
    );
    this.#corsOrigins = new Set(options.corsOrigins);
    for (const route of options.routes) {
      if (route.path.length > 1 && route.path.endsWith("/")) this.#below.push(route);
      else this.#exact.set(route.path, route);
    }
    // Not imported: see net/node-http.ts, which this layer must not import.
    this.#server = process.getBuiltinModule("node:http").createServer(
      {
        maxHeaderSize: maxHeaderBytes,
        headersTimeout: requestTimeoutMs,
        requestTimeout: requestTimeoutMs,
        keepAliveTimeout: 5_000,
        connectionsCheckingInterval: timeoutCheckMs,
      },
      (request, response) => {
        response.once("close", this.#connections.begin(request.socket));
        this.#watched.get(request.socket)?.ended(request);
        void this.#serve(request, response);
      },
    );
    this.#server.on("connection", (socket: Socket) => {
      const { heads } = options;
      if (heads !== undefined) this.#watched.set(socket, heads.add(socket));
      this.#connections.add(socket);
    });
    this.#server.on("clientError", (_error, socket) => refuse(socket, "400 Bad Request"));
    this.#server.on("upgrade", (_request, socket) => refuse(socket, "400 Bad Request"));
    this.#server.on("connect", (_request, socket) => refuse(socket, "405 Method Not Allowed"));
  }

  /** Binds; rejects when the address cannot be had, and the caller decides what that means. */
  listen(address: { readonly host: string; readonly port: number }): Promise<AddressInfo> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen({ host: address.host, port: address.port }, () => {
        this.#server.off("error", reject);
        // EMFILE and the like while accepting: worth a line, never the process.
        this.#server.on("error", (err) =>
          this.#log.warn({ server: this.#name, err }, "operator server error"),
        );
        const bound = this.#server.address();
        if (bound === null || typeof bound === "string") {
          reject(new Error(`${this.#name}: not bound to a port`));
          return;
        }
        this.#isLoopback = bound.address === "::1" || bound.address.startsWith("127.");
        resolve(bound);
      });
    });
  }

  /** Stops at once: an operator's stream must not hold the shutdown. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on("error", () => response.destroy());
    try {
      const reply = await this.#reply(request, response);
      // Whoever has gone meanwhile would keep a stream's place: nobody says a second time that the connection is closed.
      if (response.destroyed || request.socket.destroyed) return;
      if (typeof reply === "function") {
        if (request.method === "HEAD") response.end();
        else reply(response);
      } else await send(request, response, reply);
    } catch (err) {
      // Whoever leaves in the middle of a form is no fault of ours, and strangers may do so as often as they like.
      if (request.destroyed && !request.complete) return;
      this.#log.error({ server: this.#name, err }, "operator request failed");
      if (response.headersSent) response.destroy();
      else await send(request, response, failure(500, "internal.fault", "internal error"));
    }
  }

  async #reply(
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<AdminReply | AdminStream> {
    const isListed = this.#allowOrigin(request, response);
    if (isListed && request.method === "OPTIONS") return preflight(response);
    const url = parseTarget(request.url ?? "");
    const found = url === undefined ? undefined : this.#find(url.pathname);
    const other = otherMethod(request, response, found?.route);
    if (other !== undefined) return other;
    if (this.#isLoopback && !namesLoopback(request.headers.host)) {
      // A web page whose name was rebound to 127.0.0.1 sends its own name: nobody else does.
      return failure(421, "request.misdirected", "this address is served as localhost only");
    }
    if (url === undefined || found === undefined) {
      return failure(404, "request.not-found", "no such path");
    }
    const { route, rest } = found;
    // What changes something else is not theirs.
    const isTheirs = route.takesOperators === true || route.takesForm !== true;
    const own = isTheirs ? this.#operators : [];
    const operator = operatorOf(request.headers.authorization, this.#secret, own);
    const isSecret = this.#secret !== undefined || own.length > 0;
    if (route.isOpen !== true && operator === undefined && isSecret) {
      response.setHeader("WWW-Authenticate", 'Bearer realm="authbridge-proxy"');
      return failure(401, "auth.unauthorized", "a bearer secret is needed");
    }
    await this.#before?.();
    return this.#handle(request, response, { route, rest, query: url.searchParams, operator });
  }

  async #handle(
    request: IncomingMessage,
    response: ServerResponse,
    { route, operator, ...asked }: Found,
  ): Promise<AdminReply | AdminStream> {
    const posted = await readPosted(request, route);
    if ("error" in posted) {
      response.setHeader("Connection", "close");
      return failure(posted.status, posted.error, posted.message);
    }
    const lastEventId = request.headers["last-event-id"];
    return route.handle({
      ...asked,
      ...posted,
      ...(operator === undefined ? {} : { operator }),
      ...(typeof lastEventId === "string" ? { lastEventId } : {}),
    });
  }

  /** Tells a browser that a page of this origin may read the response; true where the operator listed it. */
  #allowOrigin(request: IncomingMessage, response: ServerResponse): boolean {
    if (this.#corsOrigins.size === 0) return false;
    response.setHeader("Vary", "Origin");
    const { origin } = request.headers;
    if (origin === undefined || !this.#corsOrigins.has(origin)) return false;
    response.setHeader("Access-Control-Allow-Origin", origin);
    return true;
  }

  #find(pathname: string): { readonly route: AdminRoute; readonly rest: string } | undefined {
    const exact = this.#exact.get(pathname);
    if (exact !== undefined) return { route: exact, rest: "" };
    for (const route of this.#below) {
      if (!pathname.startsWith(route.path) || pathname.length === route.path.length) continue;
      try {
        return { route, rest: decodeURIComponent(pathname.slice(route.path.length)) };
      } catch {
        // Broken percent-encoding names nothing.
        return undefined;
      }
    }
    return undefined;
  }
}

/** The response to a method that the route is not for. */
function otherMethod(
  { method = "" }: IncomingMessage,
  response: ServerResponse,
  route: AdminRoute | undefined,
): AdminReply | undefined {
  const isForm = route?.takesForm === true;
  const allowed = isForm ? ["POST"] : ["GET", "HEAD"];
  if (allowed.includes(method)) return undefined;
  response.setHeader("Allow", allowed.join(", "));
  const message = isForm ? "only POST is answered here" : "only GET and HEAD are answered here";
  return failure(405, "request.method-not-allowed", message);
}

/** What a page may send: a read with the secret, and the place where it left an event stream. */
function preflight(response: ServerResponse): AdminReply {
  response.setHeader("Access-Control-Allow-Methods", "GET, HEAD");
  response.setHeader("Access-Control-Allow-Headers", "Authorization, Last-Event-ID");
  response.setHeader("Access-Control-Max-Age", "600");
  return text("");
}

/** Closes for good: a peer that keeps its half open must not keep the place. */
function refuse(socket: Duplex, status: string): void {
  socket.on("error", () => socket.destroy());
  if (!socket.writable) socket.destroy();
  else socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`, () => socket.destroy());
}

async function send(
  request: IncomingMessage,
  response: ServerResponse,
  reply: AdminReply,
): Promise<void> {
  const { status, contentType, body } = reply;
  const headers = { ...fixedHeaders, ...reply.headers, "Content-Type": contentType };
  if (typeof body === "string") {
    response.writeHead(status, { ...headers, "Content-Length": Buffer.byteLength(body) });
    response.end(body);
    return;
  }
  response.writeHead(status, headers);
  if (request.method !== "HEAD") await writeParts(response, body);
  response.end();
}

/** Yields to the event loop after every batch, so that traffic does not wait for a long response to an operator. */
async function writeParts(response: ServerResponse, parts: Iterable<string>): Promise<void> {
  response.setTimeout(stalledWriteMs, () => response.destroy());
  let batch = "";
  for (const part of parts) {
    batch += part;
    if (batch.length < batchBytes) continue;
    if (!response.write(batch)) await drained(response);
    if (response.destroyed) return;
    batch = "";
    await nextTurn();
  }
  response.write(batch);
  response.setTimeout(0);
}

/** Settles when the response can take more data or is closed. */
export function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off("drain", done);
      response.off("close", done);
      resolve();
    };
    if (response.destroyed || !response.writableNeedDrain) resolve();
    else response.on("drain", done).on("close", done);
  });
}
