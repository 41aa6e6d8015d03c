/**
 * The parts of undici that the operator's client uses, loaded by themselves: its index loads fetch, WebSocket, caches and mocks as well,
 * which cost 30 ms of every start.
 */
import type { Socket } from "node:net";
import { createRequire } from "node:module";
import type * as Undici from "undici";
import { asError } from "../errors.ts";
import { readBeforeReset } from "../wire/read-before-reset.ts";

const load = createRequire(import.meta.url);

/** Keep-alive connections to one origin. */
export const Pool = load("undici/lib/dispatcher/pool.js") as typeof Undici.Pool;
/** One of them. */
export type Pool = Undici.Pool;
/** One request whose response is awaited, on a pool: the index would have made it a method. */
export const request = load("undici/lib/api/api-request.js") as (
  this: Undici.Dispatcher,
  options: Undici.Dispatcher.RequestOptions,
) => Promise<Undici.Dispatcher.ResponseData>;
/** What can go wrong on them. */
export const errors = load("undici/lib/core/errors.js") as typeof Undici.errors;

/** undici's parser of one connection, as far as it is corrected. */
interface Parser {
  onHeadersComplete(status: number, upgrade: boolean, shouldKeepAlive: boolean): number;
  /** The connection ended; returns the error that the response ended with. */
  finish(): Error | null;
}

const { kParser } = load("undici/lib/core/symbols.js") as { readonly kParser: symbol };

/** An unregistered interim response that stands for 100, which undici takes for a broken one. */
const renamedContinue = 199;

/** How a pool gets its connections, corrected where a response would be lost or truncated unnoticed. */
export function connector(open: () => Promise<Socket>): Undici.buildConnector.connector {
  return (_options, callback) => {
    open().then(
      (socket) => {
        const failure = readBeforeReset(socket);
        callback(null, socket);
        correct(socket, failure);
      },
      (error: unknown) => callback(asError(error), null),
    );
  };
}

/** Changes undici's own parser: a second one in front of it could disagree with it on where a message begins. */
function correct(socket: Socket, failure: () => Error | undefined): void {
  // Absent when the pool was closed meanwhile.
  const parser = (socket as Socket & Readonly<Record<symbol, Parser | null | undefined>>)[kParser];
  if (parser === undefined || parser === null) return;
  const onHeadersComplete = parser.onHeadersComplete.bind(parser);
  const finish = parser.finish.bind(parser);
  // A client has to expect a 100 at any time (RFC 9110 section 15.2).
  parser.onHeadersComplete = (status, ...rest) =>
    onHeadersComplete(status === 100 ? renamedContinue : status, ...rest);
  // A response that ends with its connection is whole only where that was closed, and not reset.
  parser.finish = () => socket.errored ?? failure() ?? finish();
}
