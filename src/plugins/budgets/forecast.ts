/** How much messages will take: what they say, and what those before them took. */
import { BoundedMap } from "../../bounded-map.ts";
import type { Outcome, PluginDeps, RequestContext } from "../../pipeline/plugin.ts";
import type { Prices } from "../parsers/prices.ts";
import { DistinctThings } from "./distinct.ts";
import { type Entry, isExact, tripOf } from "./entry.ts";
import { isDistinct, type DistinctUnit, isFlow, type Limit, type Place, Subject } from "./limit.ts";
import { bodyBytes, headBytes } from "./metering.ts";
import { type Asked, estimateOf, takenOf } from "./measures.ts";

/** Options of a {@link Forecast}. */
export interface ForecastOptions {
  readonly prices: Prices | undefined;
  /** Tokens of an answer that is not bounded by its request. */
  readonly answerTokens: number;
  /** The same of bytes. */
  readonly answerBytes: number;
}

/** A call that is larger than those before it was not expected; later ones are expected to be as large for a while. */
const fading = 0.9;
const maxModels = 1_000;

/** The forecast of one instance; what calls took outlives it. */
export class Forecast {
  readonly #options: ForecastOptions;
  readonly #deps: PluginDeps;
  readonly #largest: BoundedMap<string, number>;
  readonly #distinct = new DistinctThings();

  constructor(options: ForecastOptions, deps: PluginDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#largest = deps.carry("largest calls", () => new BoundedMap<string, number>(maxModels));
  }

  /** The limits of a message: those that count it, and those that would refuse it uncounted. */
  entriesOf(context: RequestContext, asked: Asked, limits: readonly Limit[]): Entry[] {
    const now = this.#deps.clock.now();
    const model = asked.view?.model;
    const subject = new Subject(context, this.#deps.sessions, model);
    const { host } = context.destination;
    const { answerTokens, answerBytes, prices } = this.#options;
    const terms = { answerTokens, answerBytes, prices: prices?.table };
    const entries: Entry[] = [];
    for (const limit of limits) {
      const { unit, refusesAll } = limit.options;
      const isCovered = limit.covers(host, model);
      if (isDistinct(unit) || isFlow(unit)) {
        const thing = isCovered ? this.#thingOf(context, limit, unit) : undefined;
        if (thing === undefined && !refusesAll) continue;
        const place = limit.placeOf(subject, now);
        if (place === undefined) continue;
        const entry = { limit, place, amount: 0, ...thing };
        if (refusesAll && limit.options.isHard) entries.push(tripOf(entry));
        if (thing !== undefined) entries.push(entry);
        continue;
      }
      const estimate = isCovered ? estimateOf(unit, asked, terms) : undefined;
      if (estimate === undefined && !refusesAll) continue;
      const place = limit.placeOf(subject, now);
      if (place === undefined) continue;
      const expected = isExact(limit.options)
        ? 0
        : (this.#largest.get(largestKey(unit, context, model)) ?? 0);
      const amount = estimate === undefined ? 0 : Math.max(1, estimate, Math.ceil(expected));
      entries.push({ limit, place, amount });
    }
    return entries;
  }

  /** Where the limit counts a message that goes on. */
  placeOf(context: RequestContext, limit: Limit, model: string | undefined): Place | undefined {
    const subject = new Subject(context, this.#deps.sessions, model);
    return limit.placeOf(subject, this.#deps.clock.now());
  }

  #thingOf(
    context: RequestContext,
    limit: Limit,
    unit: DistinctUnit | "bytes_up" | "bytes_down",
  ): { readonly amount: number; readonly member?: string } | undefined {
    if (isDistinct(unit)) return this.#distinct.of(context, limit, unit);
    // Of a tunnel nothing is known before, and of a response neither.
    if (unit === "bytes_down" || context.stage === "connect") return { amount: 0 };
    return { amount: headBytes(context) + bodyBytes(context) };
  }

  takenOf(
    { options }: Limit,
    parts: { readonly context: RequestContext; readonly outcome: Outcome; readonly asked: Asked },
  ): number {
    const { unit } = options;
    const { prices, answerTokens, answerBytes } = this.#options;
    const terms = { prices: prices?.table, answerTokens, answerBytes };
    const { amount, isKnown } = takenOf(unit, { ...parts, ...terms });
    if (!isKnown) this.#deps.count("usage_unknown");
    if (!isExact(options) && amount > 0) {
      const key = largestKey(unit, parts.context, parts.asked.view?.model);
      this.#largest.renew(key, Math.max(amount, (this.#largest.get(key) ?? 0) * fading));
    }
    return amount;
  }
}

/** What one server says of a model is not expected of another one. */
function largestKey(
  unit: string,
  { destination }: RequestContext,
  model: string | undefined,
): string {
  return `${unit} ${destination.authority} ${model ?? ""}`;
}
