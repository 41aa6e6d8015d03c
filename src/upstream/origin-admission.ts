/** Admits requests and connections to origins while there are free places. */
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { asError, type ProxyError } from "../errors.ts";
import { overloaded, type PlaceLimit, type Places, type Release } from "../net/places.ts";
import type { RequestControl, ResponseHandler } from "../http/response-handler.ts";
import { cancelled } from "../net/abort-source.ts";
import type { Direction } from "../pipeline/flow.ts";
import type { Permit } from "../pipeline/pipeline.ts";

/** The places of both directions. */
export class OriginAdmission {
  readonly #places: Readonly<Record<Direction, Places>>;
  readonly #makeRoom: () => void;

  /** `makeRoom` closes what holds a place and carries nothing. */
  constructor(places: Readonly<Record<Direction, Places>>, makeRoom: () => void) {
    this.#places = places;
    this.#makeRoom = makeRoom;
  }

  /** Sends once there is a place: HTTP/1.1 has a connection for each request (RFC 9112 section 9.4). */
  request(
    permit: Permit,
    destination: string,
    handler: ResponseHandler,
    send: (placed: PlacedHandler) => void,
  ): void {
    const placed = new PlacedHandler(handler);
    // A connection reports a request that it is about to send; a cancellation before that is noticed here.
    handler.onRequestStart(placed);
    if (placed.aborted) return;
    const places = this.#places[permit.direction];
    const claim = { caller: permit.caller, destination };
    const free = places.takeFree(claim);
    if (free !== undefined) {
      placed.hold(free);
      send(placed);
      return;
    }
    let isWaiting = true;
    placed.withdraw = places.take(
      claim,
      (release) => {
        isWaiting = false;
        placed.hold(release);
        send(placed);
      },
      (limit) => {
        isWaiting = false;
        placed.onResponseError(placed, overload(limit, destination));
      },
    );
    if (isWaiting) this.#makeRoom();
  }

  /** A place for a connection of HTTP/2, whose requests are streams of it. */
  connection(permit: Permit, signal: AbortSignal, open: () => Promise<Socket>): Promise<Socket> {
    const { authority } = permit.destination;
    return new Promise((resolve, reject) => {
      let isWaiting = true;
      const onAbort = (): void => {
        withdraw();
        reject(cancelled());
      };
      const withdraw = this.#places[permit.direction].take(
        { caller: permit.caller, destination: authority },
        (release) => {
          isWaiting = false;
          signal.removeEventListener("abort", onAbort);
          open().then(
            (socket) => {
              onceClosed(socket, release);
              resolve(socket);
            },
            (error: unknown) => {
              release();
              reject(asError(error));
            },
          );
        },
        (limit) => {
          isWaiting = false;
          reject(overload(limit, authority));
        },
      );
      if (!isWaiting) return;
      signal.addEventListener("abort", onAbort, { once: true });
      this.#makeRoom();
    });
  }
}

function overload(limit: PlaceLimit, destination: string): ProxyError {
  const what: Readonly<Record<PlaceLimit, string>> = {
    all: "too many connections to origins are in use (limits.max_upstream_connections)",
    destination: `too many connections to ${destination} are in use (limits.max_upstream_connections_per_destination)`,
    caller:
      "this caller uses too many connections to origins (limits.max_upstream_connections_per_caller)",
  };
  return overloaded(what[limit]);
}

/** Calls back when the connection is closed, also where it is already. */
export function onceClosed(socket: Duplex, gone: () => void): void {
  if (socket.closed) gone();
  else socket.once("close", gone);
}

function ignore(): void {
  // The request has been settled already.
}

/** Requests that wait for a connection to one destination: when the last of them is given up, its dials are, too. */
export class Demand {
  #waiting = 0;
  #dials = new AbortController();

  /** For the dials that begin now. */
  get signal(): AbortSignal {
    return this.#dials.signal;
  }

  begin(): void {
    this.#waiting += 1;
  }

  end(isGivenUp: boolean): void {
    this.#waiting -= 1;
    if (this.#waiting > 0 || !isGivenUp) return;
    this.#dials.abort();
    this.#dials = new AbortController();
  }
}

/**
 * The handler of a request that holds a place until its end, or until that of the connection that it became.
 *
 * It is the request's control as well until a connection has one: an object more for each request shows in the collector.
 */
export class PlacedHandler implements ResponseHandler, RequestControl {
  readonly #handler: ResponseHandler;
  /** Ends the wait for a place. */
  withdraw: () => void = ignore;
  #release: Release = ignore;
  #demand: Demand | undefined;
  #reason: Error | null = null;

  constructor(handler: ResponseHandler) {
    this.#handler = handler;
  }

  get aborted(): boolean {
    return this.#reason !== null;
  }

  hold(release: Release): void {
    this.#release = release;
  }

  /** From here to its start the request waits for a connection. */
  await(demand: Demand): this {
    demand.begin();
    this.#demand = demand;
    return this;
  }

  /** The request is not sent any more, if it has not been yet. */
  abort(reason: Error): void {
    if (this.#reason !== null) return;
    this.#reason = reason;
    this.withdraw();
    this.#settle(true);
    this.#release();
    this.#handler.onResponseError(this, reason);
  }

  pause(): void {
    // There is nothing to hold back before the request is on a connection.
  }

  resume(): void {
    // As above.
  }

  onRequestStart(control: RequestControl): void {
    this.#settle(false);
    if (this.#reason === null) this.#handler.onRequestStart(control);
    else control.abort(this.#reason);
  }

  onResponseStarted(): void {
    this.#handler.onResponseStarted();
  }

  onInformational(control: RequestControl, status: number, headers: string[]): void {
    this.#handler.onInformational(control, status, headers);
  }

  onResponseStart(
    control: RequestControl,
    status: number,
    headers: string[],
    reason: string | undefined,
  ): void {
    this.#handler.onResponseStart(control, status, headers, reason);
  }

  onUpgrade(status: number, headers: string[], socket: Duplex, head: Buffer): void {
    onceClosed(socket, this.#release);
    this.#handler.onUpgrade(status, headers, socket, head);
  }

  onResponseData(control: RequestControl, chunk: Buffer): void {
    this.#handler.onResponseData(control, chunk);
  }

  get isDrained(): boolean {
    return this.#handler.isDrained === true;
  }

  onResponseEnd(control: RequestControl, trailers: readonly string[]): void {
    this.#release();
    this.#handler.onResponseEnd(control, trailers);
  }

  onResponseError(control: RequestControl, error: Error): void {
    this.#settle(false);
    this.#release();
    if (this.#reason === null) this.#handler.onResponseError(control, error);
  }

  #settle(isGivenUp: boolean): void {
    this.#demand?.end(isGivenUp);
    this.#demand = undefined;
  }
}
