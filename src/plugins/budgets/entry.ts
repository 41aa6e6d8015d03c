/** One limit in its place for one message, and what becomes of it. */
import type { RequestContext, RpcRefusal } from "../../pipeline/plugin.ts";
import { mcpFact } from "../../protocols/mcp-message.ts";
import type { LeasedAddition } from "./leases.ts";
import { isDistinct, isStrict, type Limit, type LimitOptions, type Place } from "./limit.ts";

/** A limit that has been reached by a message. */
export interface Exceeded {
  readonly limit: LimitOptions;
  /** Reservations of calls under way included. */
  readonly used: number;
  /** When it begins anew; infinite for a lifetime. */
  readonly until: number;
  /** It is not used up yet: calls under way hold the rest. */
  readonly isHeld: boolean;
  /** What the message would take. */
  readonly wanted: number;
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
  /** What it is counted by, once. */
  readonly member?: string | undefined;
  /** It asks whether the limit has refused anything yet, which then holds for everything. */
  readonly isTrip?: true;
}

/** Where it is kept that a limit has refused something. */
export function tripOf({ limit, place }: Entry): Entry {
  return { limit, place: { ...place, key: `${place.key}:refused` }, amount: 0, isTrip: true };
}

/** Amounts that are known before the message goes. */
export function isExact({ unit }: Pick<LimitOptions, "unit">): boolean {
  return unit !== "tokens" && unit !== "cost" && unit !== "bytes";
}

export function additionOf(entry: Entry): LeasedAddition {
  const { limit, place, amount, member, isTrip } = entry;
  const { key, ttlMs } = place;
  if (isTrip === true) return { key, by: 0, below: 1, ttlMs };
  const { isHard, lease } = limit.options;
  const below = isHard ? boundOf(entry) : undefined;
  return { key, by: amount, below, ttlMs, ...(member === undefined ? { lease } : { member }) };
}

/** Where what is taken is known before, no message takes more than there is. */
function boundOf({ limit: { options }, amount }: Entry): number {
  return isStrict(options.unit) ? options.limit - Math.max(1, amount) + 1 : options.limit;
}

/** The soft limits that were reached before this message. */
export function overOf(entries: readonly Entry[], values: readonly number[]): LimitOptions[] {
  return entries.flatMap(({ limit: { options }, amount }, at) => {
    if (options.isHard) return [];
    const value = values[at] ?? 0;
    // What was counted before adds nothing, and is over where anything is.
    const isOver = isDistinct(options.unit)
      ? value > options.limit
      : value - amount >= options.limit;
    return isOver ? [options] : [];
  });
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
  const amounts = new Map(
    entries.flatMap((one, at) =>
      one.isTrip === true ? [] : [[one.limit.options.name, values[at] ?? 0]],
    ),
  );
  if (seconds !== undefined) amounts.set("duration", seconds);
  const { until, values: names } = place;
  const used = entry.isTrip === true ? limit.options.limit : (values[at] ?? 0);
  return {
    limit: limit.options,
    used,
    until,
    isHeld: false,
    wanted: entry.amount,
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
