/**
 * The engine of budgets: an amount is reserved with the store before a message goes, and put right when it is over, so
 * that calls at once cannot take more than is there.
 */
import {
  type Added,
  type Answer,
  observe,
  type Outcome,
  type Passing,
  type PluginDeps,
  type RequestContext,
  type Soon,
  type StateStore,
} from "../../pipeline/plugin.ts";
import { asking } from "./asking.ts";
import { AccountBook, type Room } from "./account-book.ts";
import { Ages } from "./ages.ts";
import { additionOf, type Entry, exceededOf, isExact, overOf, tripOf } from "./entry.ts";
import { Forecast, type ForecastOptions } from "./forecast.ts";
import { Legibility, type LegibilityOptions } from "./legibility.ts";
import { isFlow, isOfConnections, isStrict, Limit, type LimitOptions } from "./limit.ts";
import { Metering, type Sides } from "./metering.ts";
import {
  hasLeft,
  markOver,
  type Reservation,
  reservedBy,
  settlementOf,
  wantsHead,
} from "./reservation.ts";
import { Refusals, type RefusalOptions } from "./refusals.ts";
import { type Asked, askedOf, callUnits, noCall } from "./measures.ts";
import { type SeenHere, sharedSight, Sightings } from "./sightings.ts";

/** What an instance is made of, whatever its keys are called. */
export interface EngineOptions extends ForecastOptions, LegibilityOptions, RefusalOptions {
  readonly limits: readonly LimitOptions[];
  readonly store: StateStore;
  /** Where the counters are, for what lives as long as they do. */
  readonly storeName: string;
  /** Longest that a message waits for one under way. */
  readonly waitMs: number;
  /** What was spent before the store began to count: the least that the first limit has. */
  spentBefore?(this: void): Soon<number>;
  /** Hears of what was taken. */
  onTaken?(this: void, limit: LimitOptions, amount: number): void;
}

/** The limits of one instance. */
export class BudgetEngine {
  readonly #options: EngineOptions;
  readonly #deps: PluginDeps;
  readonly #limits: readonly Limit[];
  readonly #accounts: AccountBook;
  readonly #ages: Ages;
  readonly #sightings: Sightings;
  readonly #legibility: Legibility;
  readonly #forecast: Forecast;
  readonly #refusals: Refusals;
  readonly #metering: Metering;
  readonly #hasFlows: boolean;
  readonly #looksForCalls: boolean;
  readonly #tunnelLimits: readonly Limit[];

  constructor(options: EngineOptions, deps: PluginDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#limits = options.limits.map((limit) => new Limit(limit, deps.instance));
    this.#ages = new Ages(options.store);
    this.#sightings = new Sightings(deps);
    const isLeased = options.limits.some(({ lease = 0 }) => lease > 0);
    this.#accounts = new AccountBook({ ...options, isLeased }, deps);
    this.#legibility = new Legibility(options, this.#limits, deps);
    this.#forecast = new Forecast(options, deps);
    this.#refusals = new Refusals(options, deps);
    this.#hasFlows = options.limits.some(({ unit }) => isFlow(unit));
    this.#metering = new Metering({
      accounts: this.#accounts,
      refusals: this.#refusals,
      sightings: this.#sightings,
      deps,
      onRefused: (entry) => this.#trip(entry),
      onOver: (context, limit) => {
        const reservation = this.#reservationOf(context);
        if (reservation !== undefined) reservation.over = [...reservation.over, limit];
      },
      placeOf: (context, { limit }) =>
        this.#forecast.placeOf(context, limit, this.#reservationOf(context)?.asked.view?.model),
    });
    this.#tunnelLimits = this.#limits.filter((limit) => limit.isOfTunnels);
    this.#looksForCalls = options.limits.some(({ unit }) => callUnits.has(unit));
  }

  /** A tunnel to a host that a limit names is opened by the bridge, or not at all: inside it nothing could be counted. */
  judgeConnect(context: RequestContext): Answer | Promise<Answer> {
    const { destination, tunnelTerms } = context;
    for (const limit of this.#limits) {
      const { isHard, unit, name } = limit.options;
      if (!isHard || isOfConnections(unit) || !limit.namesHost(destination.host)) continue;
      tunnelTerms.mustInspect = `budget '${name}'`;
    }
    return this.#judge(context, noCall, this.#tunnelLimits);
  }

  /** Whether a person may have to be asked about the message, for which it has to be read whole. */
  mayAsk({ destination }: RequestContext): boolean {
    return this.#limits.some((limit) => limit.asksFor(destination.host));
  }

  /** Begins with what was spent before the store began to count. */
  async start(): Promise<void> {
    await this.#accounts.start();
    const place = this.#limits[0]?.placeOf(undefined, this.#deps.clock.now());
    const spent = (await this.#options.spentBefore?.()) ?? 0;
    if (place !== undefined && spent > 0) await this.#accounts.begin(place, spent);
  }

  judgeRequest(context: RequestContext): Answer | Promise<Answer> {
    const asked = askedOf(context, this.#looksForCalls);
    return this.#legibility.problem(context, asked) ?? this.#judge(context, asked, this.#limits);
  }

  /** What {@link judgeRequest} would say now; nothing is reserved. */
  rehearse(context: RequestContext): Answer | Promise<Answer> {
    const asked = askedOf(context, this.#looksForCalls);
    const problem = this.#legibility.problem(context, asked);
    if (problem !== undefined) return problem;
    const entries = this.#forecast
      .entriesOf(context, asked, this.#limits)
      .filter(({ limit }) => limit.options.unit !== "seconds");
    if (entries.length === 0) return undefined;
    const looks = entries.map(additionOf).map((addition) => ({ ...addition, by: 0 }));
    const said = ({ refusedAt, values }: Added): Answer | Promise<Answer> => {
      if (refusedAt === undefined) return observe("within_budget");
      return this.#refusals.said(context, exceededOf(entries, values, refusedAt));
    };
    return asking(
      () => this.#options.store.add(looks),
      said,
      (error) => this.#refusals.away(error),
    );
  }

  /** Soft limits say in the response that they have been reached. */
  mark(context: RequestContext): void {
    const reservation = this.#reservationOf(context);
    if (reservation !== undefined) markOver(context, reservation);
  }

  /** Whether the head of the response matters: {@link mark} has something to say, or a gateway says there what it charges. */
  wantsHead(context: RequestContext): boolean {
    const reservation = this.#reservationOf(context);
    return reservation !== undefined && wantsHead(reservation);
  }

  /** Whether something of the message, which is about to go, is counted while it goes by. */
  countsBytes(context: RequestContext): boolean {
    const reservation = this.#reservationOf(context);
    if (reservation === undefined) return false;
    if (reservation.isMade && reservation.isGone === undefined) {
      reservation.isGone = true;
      for (const { key, by } of reservedBy(reservation)) this.#accounts.use(key, by);
    }
    return this.#sidesOf(context, reservation) !== undefined;
  }

  passes(context: RequestContext, passing: Passing): Answer | Promise<Answer> {
    const sides = this.#reservationOf(context)?.sides;
    return sides === undefined ? undefined : this.#metering.pass(context, sides, passing);
  }

  /** Puts right what was reserved. */
  settle(context: RequestContext, outcome: Outcome): Soon<void> {
    const reservation = this.#reservationOf(context);
    if (reservation === undefined) return undefined;
    const { asked, isMade } = reservation;
    const isSent = hasLeft(context, reservation, outcome);
    // Under on_error: observe a refused message goes all the same, and counts.
    if (!isMade && outcome.deniedBy !== undefined && !isSent) return undefined;
    const { held, corrections, corrected } = settlementOf(reservation, (limit) => {
      const taken = this.#forecast.takenOf(limit, { context, outcome, asked });
      this.#options.onTaken?.(limit.options, taken);
      return taken;
    });
    const used = reservation.isGone === true ? [...held] : [];
    const sides = this.#sidesOf(context, reservation);
    if (sides !== undefined) {
      const ended = this.#metering.end(sides, isSent);
      held.push(...ended.held);
      corrections.push(...ended.corrections);
      used.push(...ended.used);
    }
    const settled = this.#accounts.settle(held, corrections, used);
    const see = (added: Added | undefined): void => {
      for (const [at, value] of (added?.values ?? []).entries()) {
        const entry = corrected[at];
        if (entry !== undefined) this.#sightings.saw(entry.limit.options, entry.place, value);
      }
    };
    return settled instanceof Promise ? settled.then(see) : see(settled);
  }

  /** What was used last, models without a price, and what the store is still to be told. */
  get seen(): SeenHere {
    return {
      limits: this.#sightings.here((key) => this.#accounts.leftOf(key)),
      unknownModels: this.#legibility.unknownModels,
      owed: this.#accounts.owed,
      isOwedByAll: this.#accounts.isOfAllThreads,
    };
  }

  /** For operators: one view of what all threads have seen. */
  async shown(threads: readonly SeenHere[]): Promise<object> {
    const { store } = this.#options;
    const counted = { now: this.#deps.clock.now(), store, ages: this.#ages };
    const limits = await this.#sightings.shown(this.#limits, threads, counted);
    return { limits, ...sharedSight(threads) };
  }

  #judge(
    context: RequestContext,
    asked: Asked,
    limits: readonly Limit[],
  ): Answer | Promise<Answer> {
    const entries = this.#forecast.entriesOf(context, asked, limits);
    if (entries.length === 0 || context.isOpen) return undefined;
    const made = (): Reservation => ({ asked, entries, isMade: false, over: [] });
    const reservation = context.stateOf<Reservation>(this, made);
    const now = this.#deps.clock.now();
    const counted = (): Answer | Promise<Answer> =>
      this.#reserve(context, reservation, now + this.#options.waitMs);
    const timed = entries.find(({ limit }) => limit.options.unit === "seconds");
    if (timed === undefined) return counted();
    return asking(
      () => this.#ages.secondsOf(timed.place, now),
      (seconds) => this.#aged(context, { timed, seconds, reservation }, counted),
      (error) => this.#refusals.away(error),
    );
  }

  /** A session that is too old is refused; the others are counted. */
  #aged(
    context: RequestContext,
    parts: {
      readonly timed: Entry;
      readonly seconds: number;
      readonly reservation: Reservation;
    },
    counted: () => Answer | Promise<Answer>,
  ): Answer | Promise<Answer> {
    const { timed, seconds, reservation } = parts;
    const { limit, place } = timed;
    this.#sightings.saw(limit.options, place, seconds);
    reservation.entries = reservation.entries.filter((entry) => entry !== timed);
    reservation.seconds = seconds;
    if (seconds < limit.options.limit) {
      return reservation.entries.length === 0 ? observe("within_budget") : counted();
    }
    if (!limit.options.isHard) {
      this.#deps.count("soft_exceeded");
      return reservation.entries.length === 0 ? observe("budget_exceeded") : counted();
    }
    return this.#refusals.exceeded(context, exceededOf([timed], [seconds], 0));
  }

  #reserve(
    context: RequestContext,
    reservation: Reservation,
    deadline: number,
  ): Answer | Promise<Answer> {
    return asking(
      () => this.#accounts.reserve(reservation.entries.map(additionOf)),
      (added) => this.#reserved(context, reservation, { added, deadline }),
      (error) => this.#refusals.away(error),
    );
  }

  #reserved(
    context: RequestContext,
    reservation: Reservation,
    { added, deadline }: { readonly added: Added; readonly deadline: number },
  ): Answer | Promise<Answer> {
    const { entries } = reservation;
    for (const [at, { limit, place, isTrip }] of entries.entries()) {
      if (isTrip !== true) this.#sightings.saw(limit.options, place, added.values[at] ?? 0);
    }
    if (added.refusedAt === undefined) {
      reservation.isMade = true;
      reservation.over = overOf(entries, added.values);
      if (reservation.approval !== undefined) return reservation.approval;
      if (reservation.over.length === 0) return observe("within_budget");
      this.#deps.count("soft_exceeded");
      return observe("budget_exceeded", { budget: reservation.over[0]?.name ?? "" });
    }
    const exceeded = exceededOf(entries, added.values, added.refusedAt, reservation.seconds);
    const { limit, used, key } = exceeded;
    const entry = entries[added.refusedAt];
    if (limit.asks === true && entry !== undefined) {
      return Promise.resolve(this.#refusals.said(context, exceeded)).then((decision) => {
        if (decision.action === "deny") {
          this.#trip(entry);
          return decision;
        }
        reservation.approval = observe(decision.reason, decision.details);
        reservation.entries = entries.map((one) =>
          one.limit === entry.limit ? { ...one, isWaived: true } : one,
        );
        return this.#reserve(context, reservation, this.#deps.clock.now() + this.#options.waitMs);
      });
    }
    this.#trip(entry);
    const said = (room: Room): Answer | Promise<Answer> =>
      room === "free"
        ? this.#reserve(context, reservation, deadline)
        : this.#refusals.exceeded(context, { ...exceeded, isHeld: room === "held" });
    if (isExact(limit)) return said("none");
    const leftMs = deadline - this.#deps.clock.now();
    return asking(
      () => this.#accounts.room(key, { used, limit: limit.limit, leftMs }, context.signal),
      said,
      (error) => this.#refusals.away(error),
    );
  }

  /** From its first refusal on, a limit that is never used up whole may refuse everything. */
  #trip(entry: Entry | undefined): void {
    if (entry === undefined || entry.isTrip === true) return;
    const { refusesAll, unit } = entry.limit.options;
    if (!refusesAll || !isStrict(unit)) return;
    const { key, ttlMs } = tripOf(entry).place;
    void this.#accounts.settle([], [{ key, ttlMs, by: 1 }]);
  }

  #sidesOf(context: RequestContext, reservation: Reservation): Sides | undefined {
    if (!this.#hasFlows) return undefined;
    reservation.sides ??= this.#metering.begin(context, reservation.entries, reservation.isMade);
    return reservation.sides;
  }

  #reservationOf(context: RequestContext): Reservation | undefined {
    return context.stateOf<Reservation | undefined>(this, () => undefined);
  }
}
