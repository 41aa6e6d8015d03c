/** Connections to one destination, kept for further requests; the one that was used last is used first. */
import type { Socket } from "node:net";
import { asError } from "../errors.ts";
import type { ResponseHandler } from "../http/response-handler.ts";
import type { StallWatch } from "../net/stall-watch.ts";
import { ClientConnection, type ClientLimits, type ConnectionOwner } from "./client-connection.ts";
import { ClientExchange } from "./client-exchange.ts";
import { ClientFault } from "./client-fault.ts";
import type { ClientRequest } from "./client-request.ts";

/** Parts of a pool. */
export interface ClientPoolOptions {
  /** Opens another connection. How many there may be is the caller's to say. */
  readonly open: () => Promise<Socket>;
  readonly limits: ClientLimits;
  /** The timer of all connections. */
  readonly watch: StallWatch;
}

/** Sends each request on a connection of its own. */
export class ClientPool implements ConnectionOwner {
  readonly #options: ClientPoolOptions;
  /** Each with its slot of the watch. */
  readonly #connections = new Map<ClientConnection, number>();
  readonly #idle: ClientConnection[] = [];
  #isRetired = false;
  #isDestroyed = false;

  constructor(options: ClientPoolOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#connections.size;
  }

  /** Those that carry no request. */
  get idle(): number {
    return this.#idle.length;
  }

  dispatch(request: ClientRequest, handler: ResponseHandler): void {
    this.#place(new ClientExchange(request, handler));
  }

  /** Lets running requests finish, and those that wait for a connection. */
  retire(): void {
    this.#isRetired = true;
    // Each leaves the list.
    for (const connection of this.#connections.keys()) connection.retire();
  }

  destroy(): void {
    this.#isRetired = true;
    this.#isDestroyed = true;
    for (const connection of this.#connections.keys()) connection.destroy(letGo());
  }

  freed(connection: ClientConnection): void {
    connection.freedIn = turn;
    if (!isCounting) {
      isCounting = true;
      setImmediate(countTurn);
    }
    this.#idle.push(connection);
  }

  gone(connection: ClientConnection): void {
    const slot = this.#connections.get(connection);
    if (slot === undefined) return;
    this.#options.watch.delete(slot);
    this.#connections.delete(connection);
    const at = this.#idle.lastIndexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
  }

  displaced(exchange: ClientExchange): void {
    this.#place(exchange);
  }

  #place(exchange: ClientExchange): void {
    const now = performance.now();
    for (;;) {
      const connection = this.#idle.pop();
      if (connection === undefined) break;
      if (connection.isUsable(now)) {
        connection.reserve(exchange);
        sendSoon(connection);
        return;
      }
      connection.destroy(letGo());
    }
    if (this.#isDestroyed) {
      exchange.handler.onResponseError(exchange, letGo());
      return;
    }
    this.#options.open().then(
      (socket) => this.#opened(socket, exchange),
      (error: unknown) => exchange.handler.onResponseError(exchange, asError(error)),
    );
  }

  #opened(socket: Socket, exchange: ClientExchange): void {
    if (this.#isDestroyed || socket.destroyed) {
      const why = this.#isDestroyed
        ? letGo()
        : new ClientFault("closed", "the connection was closed", socket.errored ?? undefined);
      socket.destroy();
      exchange.handler.onResponseError(exchange, why);
      return;
    }
    const connection = new ClientConnection(socket, this, this.#options.limits);
    this.#connections.set(connection, this.#options.watch.add(connection));
    connection.send(exchange);
    if (this.#isRetired) connection.retire();
  }
}

function letGo(): Error {
  return new Error("the connections are let go");
}

/** The turn of the event loop; counted only where it matters. */
let turn = 0;
let isCounting = false;

function countTurn(): void {
  isCounting = false;
  turn += 1;
}

/**
 * Connections whose next request leaves once the sockets were read, and those for which that is after the next reading.
 *
 * An idle connection may have bytes that nobody asked for, or the end of the origin, in the very turn that brings its next
 * request; a request that left before they were read would have them for its response. What comes right behind a response
 * can be read no earlier than in the turn after that.
 */
let due: ClientConnection[] = [];
let fresh: ClientConnection[] = [];

function sendSoon(connection: ClientConnection): void {
  if (due.length + fresh.length === 0) setImmediate(sendDue);
  (connection.freedIn === turn ? fresh : due).push(connection);
}

function sendDue(): void {
  const now = due;
  due = fresh;
  fresh = [];
  if (due.length > 0) setImmediate(sendDue);
  for (const connection of now) connection.sendReserved();
}
