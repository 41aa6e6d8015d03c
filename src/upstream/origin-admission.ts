/** Lets requests and connections to origins in as there are places for them. */
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { asError, ProxyError } from "../errors.ts";
import type { PlaceLimit, Places, Release } from "../net/places.ts";
import type { Direction } from "../pipeline/flow.ts";
import type { Permit } from "../pipeline/pipeline.ts";
import { StreamControl } from "./http2-stream.ts";
import type { Dispatcher } from "./undici.ts";

type Controller = Dispatcher.DispatchController;
type Fields = Record<string, string | string[] | undefined>;

/** The places of both directions. */
export class OriginAdmission {
  readonly #places: Readonly<Record<Direction, Places>>;
  readonly #makeRoom: () => void;

  /** `makeRoom` lets go what holds a place and carries nothing. */
  constructor(places: Readonly<Record<Direction, Places>>, makeRoom: () => void) {
    this.#places = places;
    this.#makeRoom = makeRoom;
  }

  /** Sends once there is a place: HTTP/1.1 has a connection for each request (RFC 9112 section 9.4). */
  request(
    permit: Permit,
    destination: string,
    handler: Dispatcher.DispatchHandler,
    send: (placed: PlacedHandler) => void,
  ): void {
    const control = new StreamControl();
    let isWaiting = true;
    const withdraw = this.#places[permit.direction].take(
      { caller: permit.caller, destination },
      (release) => {
        isWaiting = false;
        control.onAbort = ignore;
        send(new PlacedHandler(handler, release));
      },
      (limit) => {
        isWaiting = false;
        control.onAbort = ignore;
        handler.onResponseError?.(control, overload(limit, destination));
      },
    );
    if (!isWaiting) return;
    control.onAbort = (reason) => {
      withdraw();
      handler.onResponseError?.(control, reason);
    };
    handler.onRequestStart?.(control, undefined);
    this.#makeRoom();
  }

  /** A place for a connection of HTTP/2, whose requests are streams of it. */
  connection(permit: Permit, open: () => Promise<Socket>): Promise<Socket> {
    const { authority } = permit.destination;
    return new Promise((resolve, reject) => {
      let isWaiting = true;
      this.#places[permit.direction].take(
        { caller: permit.caller, destination: authority },
        (release) => {
          isWaiting = false;
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
      if (isWaiting) this.#makeRoom();
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

/** Calls back when the connection is gone, also where it is by now. */
export function onceClosed(socket: Duplex, gone: () => void): void {
  if (socket.closed) gone();
  else socket.once("close", gone);
}

function ignore(): void {
  // Whoever has the place now hears of it.
}

/** The fault of a request that found no place; `message` names the key of the bound. */
export function overloaded(message: string): ProxyError {
  return new ProxyError("proxy.overloaded", message, { headers: { "Retry-After": "5" } });
}

/** The handler of a request that holds a place until its end, or until that of the connection that it became. */
export class PlacedHandler implements Dispatcher.DispatchHandler {
  readonly #handler: Dispatcher.DispatchHandler;
  readonly #release: Release;

  constructor(handler: Dispatcher.DispatchHandler, release: Release) {
    this.#handler = handler;
    this.#release = release;
  }

  onRequestStart(controller: Controller, context: unknown): void {
    this.#handler.onRequestStart?.(controller, context);
  }

  onRequestUpgrade(controller: Controller, status: number, fields: Fields, socket: Duplex): void {
    onceClosed(socket, this.#release);
    this.#handler.onRequestUpgrade?.(controller, status, fields, socket);
  }

  onResponseStart(controller: Controller, status: number, fields: Fields, reason?: string): void {
    this.#handler.onResponseStart?.(controller, status, fields, reason);
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    this.#handler.onResponseData?.(controller, chunk);
  }

  onResponseEnd(controller: Controller, trailers: Fields): void {
    this.#release();
    this.#handler.onResponseEnd?.(controller, trailers);
  }

  onResponseError(controller: Controller, error: Error): void {
    this.#release();
    this.#handler.onResponseError?.(controller, error);
  }
}
