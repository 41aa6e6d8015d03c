/** One limit in its place for one message, and what becomes of it. */
import type { RequestContext, RpcRefusal } from "../../pipeline/plugin.ts";
import { mcpFact } from "../../protocols/mcp-message.ts";
import type { LeasedAddition } from "./leases.ts";
import type { Limit, LimitOptions, Place } from "./limit.ts";

/** A limit that has been reached by a message. */
export interface Exceeded {
  readonly limit: LimitOptions;
  /** Reservations of calls under way included. */
  readonly used: number;
  /** When it begins anew; infinite for a lifetime. */
  readonly until: number;
  /** It is not used up yet: calls under way hold the rest. */
  readonly isHeld: boolean;
  readonly key: string;
  /** What it is divided by. */
  readonly values: readonly string[];
  /** What is used of every limit of the message, by name. */
  readonly amounts: ReadonlyMap<string, number>;
}

/** One limit in its place for one message. */
export interface Entry {
  readonly limit: Limit;
  readonly place: Place;
  /** 0 where the message is not counted. */
  readonly amount: number;
}

/** Amounts that are known before the message goes. */
export function isExact({ unit }: Pick<LimitOptions, "unit">): boolean {
  return unit !== "tokens" && unit !== "cost" && unit !== "bytes";
}

export function additionOf({ limit: { options }, place, amount }: Entry): LeasedAddition {
  const below = options.isHard ? options.limit : undefined;
  return { key: place.key, by: amount, below, ttlMs: place.ttlMs, lease: options.lease };
}

/** The soft limits that were reached before this message. */
export function overOf(entries: readonly Entry[], values: readonly number[]): LimitOptions[] {
  return entries.flatMap(({ limit: { options }, amount }, at) =>
    !options.isHard && (values[at] ?? 0) - amount >= options.limit ? [options] : [],
  );
}

export function exceededOf(
  entries: readonly Entry[],
  values: readonly number[],
  at: number,
  seconds?: number,
): Exceeded {
  const entry = entries[at];
  if (entry === undefined) throw new TypeError("no such addition");
  const { limit, place } = entry;
  const amounts = new Map(entries.map((one, at) => [one.limit.options.name, values[at] ?? 0]));
  if (seconds !== undefined) amounts.set("duration", seconds);
  const { until, values: names } = place;
  const used = values[at] ?? 0;
  return {
    limit: limit.options,
    used,
    until,
    isHeld: false,
    values: names,
    amounts,
    key: place.key,
  };
}

/** Whoever calls a tool gets an error of JSON-RPC. */
export function rpcOf(context: RequestContext): { readonly rpc?: RpcRefusal } {
  const fact = context.hasFacts ? context.facts.get(mcpFact) : undefined;
  if (fact === undefined) return {};
  const ids = (fact.batch ?? [fact]).flatMap(({ rpcId }) => (rpcId === undefined ? [] : [rpcId]));
  return ids.length === 0 ? {} : { rpc: { ids, isBatch: fact.batch !== undefined } };
}
