/**
 * The parts of undici that are used, loaded by themselves: its index loads fetch, WebSocket, caches and mocks as well,
 * which cost 30 ms of every start.
 */
import { createRequire } from "node:module";
import type { Socket } from "node:net";
import type * as Undici from "undici";

const load = createRequire(import.meta.url);

/** Keep-alive connections to one origin. */
export const Pool = load("undici/lib/dispatcher/pool.js") as typeof Undici.Pool;
/** One of them. */
export type Pool = Undici.Pool;
/** One request whose answer is awaited, on a pool: the index would have made it a method. */
export const request = load("undici/lib/api/api-request.js") as (
  this: Undici.Dispatcher,
  options: Undici.Dispatcher.RequestOptions,
) => Promise<Undici.Dispatcher.ResponseData>;
/** What can go wrong on them. */
export const errors = load("undici/lib/core/errors.js") as typeof Undici.errors;
export type { Dispatcher } from "undici";

/** The parser of one connection, as far as it is corrected here. */
interface Parser {
  onHeadersComplete(status: number, upgrade: boolean, shouldKeepAlive: boolean): number;
}

const { kParser } = load("undici/lib/core/symbols.js") as { readonly kParser: symbol };

/** What handlers hear instead of 100: an interim response that nobody registered. */
const renamedContinue = 199;

/** Whether an interim response is `100 Continue`, which is for whoever sent an Expect field. */
export function isContinue(status: number): boolean {
  return status === 100 || status === renamedContinue;
}

/** How a pool gets its connections. */
export function connector(open: () => Promise<Socket>): Undici.buildConnector.connector {
  return (_options, callback) => {
    open().then(
      (socket) => {
        callback(null, socket);
        allowContinue(socket);
      },
      (error: unknown) =>
        callback(error instanceof Error ? error : new Error(String(error), { cause: error }), null),
    );
  };
}

/**
 * undici takes a 100 for a broken response; a client has to expect one at any time (RFC 9110 section 15.2).
 *
 * Its own parser is told of another status: a second parser in front of it could disagree with it on where a message
 * begins.
 */
function allowContinue(socket: Socket): void {
  // Absent when the pool was closed meanwhile.
  const parser = (socket as Socket & Readonly<Record<symbol, Parser | null | undefined>>)[kParser];
  if (parser === undefined || parser === null) return;
  const onHeadersComplete = parser.onHeadersComplete.bind(parser);
  parser.onHeadersComplete = (status, ...rest) =>
    onHeadersComplete(status === 100 ? renamedContinue : status, ...rest);
}
