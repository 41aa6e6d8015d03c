/**
 * The parts of undici that are used, loaded by themselves: its index loads fetch, WebSocket, caches and mocks as well,
 * which cost 30 ms of every start.
 */
import { createRequire } from "node:module";
import type * as Undici from "undici";

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
export type { Dispatcher } from "undici";
