/**
 * Bytes that are counted while they go by: a share is taken from the store, what goes by takes its own from that, and what
 * is left of it goes back at the end.
 */
import {
  type Added,
  type Addition,
  type Answer,
  observe,
  type Passing,
  type PluginDeps,
  type RequestContext,
} from "../../pipeline/plugin.ts";
import type { AccountBook } from "./account-book.ts";
import { asking } from "./asking.ts";
import { additionOf, type Entry, exceededOf } from "./entry.ts";
import { isFlow, type LimitOptions, type Place } from "./limit.ts";
import type { Refusals } from "./refusals.ts";
import type { Sightings } from "./sightings.ts";

/** One limit of one direction. */
interface Meter {
  entry: Entry;
  /** What was taken of the counter that it is in now. */
  granted: number;
  /** What has gone by of that. */
  used: number;
}

/** One direction of a message or a tunnel. */
interface Side {
  readonly meters: readonly Meter[];
  /** Taken from the store, and not gone by. */
  left: number;
  /** Gone by, and not taken from the store. */
  owed: number;
  /** Gone by while the store was asked. */
  lacking: number;
  isAsking: boolean;
  isRefused: boolean;
  isOver: boolean;
}

/** Both directions. */
export interface Sides {
  readonly client: Side;
  readonly server: Side;
}

/** What the engine has for a {@link Metering}. */
export interface MeteringParts {
  readonly accounts: AccountBook;
  readonly refusals: Refusals;
  readonly sightings: Sightings;
  readonly deps: Pick<PluginDeps, "clock" | "count">;
  /** The limit has refused something. */
  onRefused(this: void, entry: Entry): void;
  /** A soft limit has been reached. */
  onOver(this: void, context: RequestContext, limit: LimitOptions): void;
  /** Where the limit counts now; undefined where it does not count this message. */
  placeOf(this: void, context: RequestContext, entry: Entry): Place | undefined;
}

/** Taken at once beyond what is needed, so that not every chunk asks the store: a thousandth of the limit at most. */
const mostAhead = 262_144;
const shareAhead = 1_000;

/** Bytes that a request sends besides a body that is streamed. */
export function headBytes({ method, path, headers }: RequestContext): number {
  let sum = method.length + path.length;
  for (const [name, value] of headers) sum += name.length + value.length;
  return sum;
}

/** What is known of the length of the body. */
export function bodyBytes({ body, headers, hasBody }: RequestContext): number {
  if (body !== undefined) return body.length;
  const length = Number(headers.get("content-length") ?? 0);
  return hasBody && Number.isSafeInteger(length) && length > 0 ? length : 0;
}

/** The meters of one instance. */
export class Metering {
  readonly #parts: MeteringParts;

  constructor(parts: MeteringParts) {
    this.#parts = parts;
  }

  /** The meters of a message whose entries were reserved, or not: the store was away. Undefined where it has none. */
  begin(context: RequestContext, entries: readonly Entry[], isMade: boolean): Sides | undefined {
    if (!entries.some(({ limit }) => isFlow(limit.options.unit))) return undefined;
    const isStreamed = context.stage === "request" && context.body === undefined;
    const body = isStreamed ? bodyBytes(context) : 0;
    const sideOf = (unit: LimitOptions["unit"], left: number): Side => {
      const own = entries.filter(
        ({ limit, isTrip }) => limit.options.unit === unit && isTrip !== true,
      );
      const amount = own.reduce((most, one) => Math.max(most, one.amount), 0);
      return {
        meters: own.map((entry) => ({ entry, granted: isMade ? entry.amount : 0, used: 0 })),
        left: isMade ? Math.min(left, amount) : 0,
        owed: isMade ? 0 : Math.max(0, amount - left),
        lacking: 0,
        isAsking: false,
        isRefused: false,
        isOver: false,
      };
    };
    const sides = { client: sideOf("bytes_up", body), server: sideOf("bytes_down", 0) };
    // The head is on its way.
    for (const meter of sides.client.meters)
      this.#use(meter, Math.max(0, meter.granted - sides.client.left));
    return sides;
  }

  pass(context: RequestContext, sides: Sides, { from, bytes }: Passing): Answer | Promise<Answer> {
    const side = sides[from];
    if (side.meters.length === 0) return undefined;
    if (side.isAsking) {
      side.lacking += bytes;
      return undefined;
    }
    if (side.left >= bytes) {
      side.left -= bytes;
      for (const meter of side.meters) this.#use(meter, bytes);
      return undefined;
    }
    if (side.isRefused) {
      // Under on_error: observe it goes by all the same, and nothing is left to be said.
      side.owed += bytes;
      return undefined;
    }
    this.#turn(context, side);
    return this.#take(context, side, { from, bytes }, this.#aheadOf(side));
  }

  /** What is put right of each counter when it is over; what never left took nothing. */
  end(
    { client, server }: Sides,
    hasLeft: boolean,
  ): Record<"held" | "corrections" | "used", Addition[]> {
    const held: Addition[] = [];
    const corrections: Addition[] = [];
    const used: Addition[] = [];
    for (const side of [client, server]) {
      for (const { entry, granted, used: by } of side.meters) {
        const { key, ttlMs } = entry.place;
        if (granted > 0) held.push({ key, by: granted });
        if (by > 0) used.push({ key, by });
        const change = hasLeft ? side.owed - Math.min(side.left, granted) : -granted;
        if (change !== 0) corrections.push({ key, ttlMs, by: change });
      }
    }
    return { held, corrections, used };
  }

  /** Not more than was taken: what was taken of an earlier window goes by in this one. */
  #use(meter: Meter, bytes: number): void {
    const by = Math.min(bytes, meter.granted - meter.used);
    meter.used += by;
    this.#parts.accounts.use(meter.entry.place.key, by);
  }

  /** A tunnel lasts longer than a window: what goes by from now on counts in the one that is. */
  #turn(context: RequestContext, { meters }: Side): void {
    const { deps, placeOf, accounts } = this.#parts;
    const now = deps.clock.now();
    for (const meter of meters) {
      const { entry, granted } = meter;
      if (entry.place.until > now) continue;
      const place = placeOf(context, entry);
      if (place === undefined) continue;
      const { key } = entry.place;
      if (granted > 0) void accounts.settle([{ key, by: granted }], [], [{ key, by: meter.used }]);
      meter.entry = { ...entry, place };
      meter.granted = 0;
      meter.used = 0;
    }
  }

  #aheadOf({ meters }: Side): number {
    return meters.reduce(
      (least, { entry }) => Math.min(least, Math.floor(entry.limit.options.limit / shareAhead)),
      mostAhead,
    );
  }

  #take(
    context: RequestContext,
    side: Side,
    passing: Passing,
    ahead: number,
  ): Answer | Promise<Answer> {
    const { accounts, refusals } = this.#parts;
    const amount = passing.bytes - side.left + ahead;
    const entries = side.meters.map(({ entry }) => ({ ...entry, amount }));
    const next = (added: Added): Answer | Promise<Answer> => {
      side.isAsking = false;
      if (added.refusedAt === undefined)
        return this.#taken(context, side, { passing, added, amount });
      // What others hold ahead may be what lacks.
      if (ahead > 0) return this.#take(context, side, passing, 0);
      return this.#refused(context, side, { passing, added, entries });
    };
    const away = (error: unknown): Answer => {
      side.isAsking = false;
      side.owed += passing.bytes + side.lacking;
      side.lacking = 0;
      return refusals.away(error);
    };
    side.isAsking = true;
    return asking(() => accounts.reserve(entries.map(additionOf)), next, away);
  }

  #taken(
    context: RequestContext,
    side: Side,
    parts: { readonly passing: Passing; readonly added: Added; readonly amount: number },
  ): Answer | Promise<Answer> {
    const { passing, added, amount } = parts;
    const { sightings, deps, onOver } = this.#parts;
    side.left += amount - passing.bytes;
    let over: LimitOptions | undefined;
    for (const [at, meter] of side.meters.entries()) {
      const { limit, place } = meter.entry;
      const value = added.values[at] ?? 0;
      meter.granted += amount;
      this.#use(meter, passing.bytes);
      sightings.saw(limit.options, place, value);
      if (limit.options.isHard || value - side.left <= limit.options.limit) continue;
      over ??= limit.options;
    }
    const bytes = side.lacking;
    side.lacking = 0;
    if (bytes > 0) return this.pass(context, { client: side, server: side }, { ...passing, bytes });
    if (over === undefined || side.isOver) return undefined;
    side.isOver = true;
    deps.count("soft_exceeded");
    onOver(context, over);
    return observe("budget_exceeded", { budget: over.name });
  }

  #refused(
    context: RequestContext,
    side: Side,
    parts: { readonly passing: Passing; readonly added: Added; readonly entries: readonly Entry[] },
  ): Answer {
    const { passing, added, entries } = parts;
    const at = added.refusedAt ?? 0;
    side.isRefused = true;
    // What the server sent is on its way, and under on_error: observe everything is.
    if (passing.from === "server" || context.isHypothetical)
      side.owed += passing.bytes + side.lacking;
    side.lacking = 0;
    const entry = entries[at];
    if (entry !== undefined) this.#parts.onRefused(entry);
    return this.#parts.refusals.refuse(context, exceededOf(entries, added.values, at));
  }
}
