/** The HTTP/1.1 server of every surface: limits, malformed input, end of connections. */
import net, { type Socket } from "node:net";
import type { HeadWatch } from "../../net/head-watch.ts";
import { Slots } from "../../net/slots.ts";
import { peek } from "../../net/sniff.ts";
import type { Denial, Reply } from "../../pipeline/decision.ts";
import type { RequestHead } from "../../wire/head.ts";
import { MalformedMessage, malformedRequest } from "../../wire/malformed.ts";
import { isNegotiated } from "../../wire/other-protocols.ts";
import {
  type ConnectionEvents,
  type ConnectionLimits,
  ServerConnection,
} from "../../wire/server-connection.ts";
import type { ServerExchange } from "../../wire/server-exchange.ts";
import type { FlowRecorder, RefusedHead } from "../flow/finish.ts";
import { denialOf, renderDenial, replyFields } from "../flow/reply.ts";
import { sendFinalResponse } from "../flow/final-response.ts";

/** Places of connections that several servers have in common. */
export interface ConnectionPlaces {
  take(limit: number): boolean;
  leave(): void;
}

/** Limits of one server. Bytes and milliseconds. */
export interface HttpLimits extends ConnectionLimits {
  readonly maxConnections: number;
  /** Places that servers of other threads take as well; absent where this one has all of them. */
  readonly shared?: ConnectionPlaces | undefined;
  /** Of HTTP/2, at once. */
  readonly maxStreamsPerConnection: number;
}

/** What every server of the process shares. */
export interface HttpServices {
  readonly recorder: Pick<FlowRecorder, "metrics" | "malformed">;
  readonly heads: HeadWatch;
}

/** What serves connections of another protocol. */
export interface ProtocolServer {
  serve(clear: Socket): void;
  drain(): void;
  close(): void;
}

/** What a surface does with what arrives. Handlers never throw and never reject. */
export interface HttpHandlers {
  /** The name of the surface in records. */
  readonly surface: RefusedHead["surface"];
  /** Serves connections in the clear that begin as HTTP/2; without it they are refused. */
  readonly http2?: ProtocolServer | undefined;
  /** Serves connections that begin as SOCKS; without it they are refused. */
  readonly socks?: ProtocolServer | undefined;
  onRequest(exchange: ServerExchange): void;
  /** A CONNECT: served with the bytes that came behind it, or refused with what is returned. */
  onConnect(head: RequestHead, client: Socket, rest: Buffer): Denial | undefined;
}

/** How connections of clients are accepted. */
export const acceptance = {
  allowHalfOpen: true,
  noDelay: true,
  keepAlive: true,
  // A response of 64 KiB would otherwise stop its upstream for one turn of the loop, at a third of the throughput.
  highWaterMark: 262_144,
} as const;

const prefaceTimeoutMs = 1_000;
/** How long a connection that was idle when the server began to drain may bring one request more. */
const lastRequestMs = 500;
const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

/** RFC 9113 section 3.4: the preface of a client, and a SETTINGS frame of the connection. */
function isHttp2(seen: Buffer): "http2" | "broken" | undefined {
  const { length } = preface;
  if (!preface.subarray(0, seen.length).equals(seen.subarray(0, length))) return "broken";
  if (seen.length < length + 9) return undefined;
  return seen[length + 3] === 4 && seen.readUInt32BE(length + 5) === 0 ? "http2" : "broken";
}

/** An HTTP/1.1 server whose connections come from a port of its own, or are given to it. */
export class HttpServer implements ConnectionEvents {
  /** Listens where the surface has a port of its own. */
  readonly server: net.Server;
  readonly #handlers: HttpHandlers;
  readonly #limits: HttpLimits;
  readonly #services: HttpServices;
  readonly #connections = new Slots<ServerConnection>();
  #timer: NodeJS.Timeout | undefined;
  #draining = false;
  #closing: NodeJS.Timeout | undefined;

  constructor(handlers: HttpHandlers, limits: HttpLimits, services: HttpServices) {
    this.#handlers = handlers;
    this.#limits = limits;
    this.#services = services;
    this.server = net.createServer(acceptance, (socket) => this.adopt(socket));
  }

  /** Serves a connection that something else accepted, and whose first bytes may have been put back into it. */
  adopt(socket: Socket): void {
    if (!this.#hasRoom()) {
      this.#services.recorder.metrics.refused("connections");
      const message = "too many connections (limits.max_connections)";
      sendFinalResponse(socket, { code: "proxy.overloaded", message });
      return;
    }
    const connection = new ServerConnection(socket, this, this.#limits);
    connection.serverSlot = this.#connections.add(connection);
    this.#services.heads.watch(connection);
    if (this.#timer === undefined) {
      const { headerTimeoutMs, keepAliveTimeoutMs } = this.#limits;
      const everyMs = Math.min(5_000, headerTimeoutMs / 4, keepAliveTimeoutMs / 4);
      this.#timer = setInterval(() => this.#check(), Math.max(50, everyMs)).unref();
    }
    if (!this.#draining) return;
    connection.drain();
    this.#closeIdleSoon();
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Closes connections that stay idle, and every other one after the response that it waits for. */
  drain(): void {
    this.#draining = true;
    for (const connection of this.#connections) connection.drain();
    this.#closeIdleSoon();
    this.#handlers.http2?.drain();
    this.#handlers.socks?.drain();
  }

  /** Requests that clients have sent by then have come, as what can be read is read before the callback of setImmediate(). */
  #closeIdleSoon(): void {
    if (this.#closing !== undefined) return;
    const closeIdle = (): void => {
      for (const connection of this.#connections) connection.closeIdle();
      this.#closing = undefined;
      // Some responses said nothing of the end, as their heads had left before.
      if (this.#connections.size > 0) this.#closeIdleSoon();
    };
    this.#closing = setTimeout(() => setImmediate(closeIdle), lastRequestMs).unref();
  }

  /** Cuts what is still open. */
  cut(): void {
    for (const { socket } of this.#connections) socket.destroy();
    this.#handlers.http2?.close();
    this.#handlers.socks?.close();
  }

  onRequest(exchange: ServerExchange): void {
    const { head, expectsContinue } = exchange;
    if (expectsContinue && head.expect?.toLowerCase() !== "100-continue") {
      const message = "only Expect: 100-continue is understood";
      endWith(exchange, renderDenial({ code: "request.expectation-failed", message }));
      return;
    }
    this.#handlers.onRequest(exchange);
  }

  onConnect(head: RequestHead, client: Socket, rest: Buffer): void {
    const refused = this.#handlers.onConnect(head, client, rest);
    if (refused !== undefined) sendFinalResponse(client, refused);
  }

  onBroken({ socket }: ServerConnection, why: MalformedMessage | "timeout"): void {
    const { recorder } = this.#services;
    if (why === "timeout") {
      recorder.metrics.refused("timeout");
      const message = "the request did not arrive in time (limits.header_timeout)";
      sendFinalResponse(socket, { code: "request.timeout", message });
      return;
    }
    const error = malformedRequest(why);
    const { surface } = this.#handlers;
    recorder.malformed(error, { surface, client: socket.remoteAddress ?? "", method: "" });
    sendFinalResponse(socket, denialOf(error));
  }

  /** Undefined where the surface has no HTTP/2. */
  get onPreface(): ((socket: Socket) => void) | undefined {
    const { http2 } = this.#handlers;
    return http2 && ((socket) => void this.#beginHttp2(socket, http2));
  }

  /** Undefined where the surface has no SOCKS. */
  get onSocks(): ((socket: Socket) => void) | undefined {
    const { socks } = this.#handlers;
    return socks && ((socket) => socks.serve(socket));
  }

  /** The preface is whole with the first frame, which comes in the same breath; without it this is a broken request. */
  async #beginHttp2(socket: Socket, http2: ProtocolServer): Promise<void> {
    socket.on("error", ignore);
    const head = this.#services.heads.add(socket);
    // Where ALPN gave it, a client that begins otherwise is not read as one of HTTP/1.1.
    const first = isNegotiated(socket) ? "http2" : await peek(socket, isHttp2, prefaceTimeoutMs);
    head.close();
    if (socket.destroyed) return;
    if (first === "http2") {
      if (this.#draining) socket.destroy();
      else http2.serve(socket);
      return;
    }
    const why = new MalformedMessage("the connection preface of HTTP/2 is not whole", "version");
    const error = malformedRequest(why);
    const { surface } = this.#handlers;
    const client = socket.remoteAddress ?? "";
    this.#services.recorder.malformed(error, { surface, client, method: "PRI" });
    sendFinalResponse(socket, denialOf(error));
  }

  onDetached(connection: ServerConnection): void {
    this.#services.heads.unwatch(connection);
  }

  onClosed(connection: ServerConnection): void {
    this.#services.heads.unwatch(connection);
    if (connection.serverSlot !== undefined) {
      this.#connections.delete(connection.serverSlot);
      connection.serverSlot = undefined;
      this.#limits.shared?.leave();
    }
    if (this.#connections.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #hasRoom(): boolean {
    const { maxConnections, shared } = this.#limits;
    return shared?.take(maxConnections) ?? this.#connections.size < maxConnections;
  }

  #check(): void {
    const now = performance.now();
    for (const connection of this.#connections) connection.check(now);
  }
}

/** The last response on a connection that is of no further use. */
export function endWith(exchange: ServerExchange, reply: Reply): void {
  const { response } = exchange;
  const { status, body, reason } = reply;
  response.closes = true;
  const fields = [...replyFields(reply), "Content-Length", String(body.length)];
  response.writeHead(status, fields, reason);
  exchange.end(body);
}

function ignore(): void {
  // `close` follows.
}
