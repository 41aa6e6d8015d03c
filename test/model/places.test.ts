/** Places: no bound is exceeded, nobody waits for what is free, each claim hears once, and callers have their turns. */
import { type Arbitrary, constantFrom, nat, record } from "fast-check";
import { expect } from "vitest";
import { type Claim, Places, type Release } from "../../src/net/places.ts";
import { promise, settled, step, stoppedClock, waits, type World } from "./interleaving.ts";

stoppedClock();

const bounds = { all: 4, perCaller: 2, perDestination: 3 };
const waitMs = 1_000;
const maxWaiting = 6;

type State = "asked" | "waiting" | "granted" | "released" | "refused" | "withdrawn";

/** A claim, and what became of it. */
interface Asked extends Claim {
  state: State;
  readonly number: number;
  readonly at: number;
  release?: Release;
  withdraw?: () => void;
}

class Claims implements World {
  readonly #places = new Places({ ...bounds, waitMs, maxWaiting });
  readonly #asked: Asked[] = [];
  readonly #problems: string[] = [];
  /** Who got a place by waiting last, and how many claims there were then. */
  #last: { readonly caller: string; readonly count: number } | undefined;

  take(claim: Claim): void {
    const asked: Asked = { ...claim, state: "asked", number: this.#asked.length, at: Date.now() };
    this.#asked.push(asked);
    asked.withdraw = this.#places.take(
      claim,
      (release) => this.#granted(asked, release),
      () => this.#heard(asked, "refused"),
    );
    if (asked.state === "asked") asked.state = "waiting";
  }

  release(at: number): void {
    const held = this.#are("granted");
    const one = held[at % held.length];
    if (one === undefined) return;
    one.state = "released";
    one.release?.();
    // Whoever gives back twice gives back once.
    one.release?.();
  }

  withdraw(at: number): void {
    const waiting = this.#are("waiting");
    const one = waiting[at % waiting.length];
    if (one === undefined) return;
    one.state = "withdrawn";
    one.withdraw?.();
  }

  check(): void {
    expect(this.#problems).toEqual([]);
    const held = this.#are("granted");
    expect(this.#places.used).toBe(held.length);
    for (const one of held) expect(this.#isWithin(one, 0), `${one.caller} has too many`).toBe(true);
    const waiting = this.#are("waiting");
    expect(waiting.length).toBeLessThanOrEqual(maxWaiting);
    for (const one of waiting) {
      expect(this.#isWithin(one, 1), `${one.caller} waits for what is free`).toBe(false);
      expect(Date.now() - one.at, "a wait has an end").toBeLessThan(waitMs);
    }
  }

  async end(): Promise<void> {
    while (this.#are("granted").length > 0) this.release(0);
    await settled();
    this.check();
    expect(this.#are("waiting")).toEqual([]);
    expect(this.#places.used).toBe(0);
  }

  #are(state: State): Asked[] {
    return this.#asked.filter((one) => one.state === state);
  }

  /** Whether there is room for so many more like it. */
  #isWithin({ caller, destination }: Claim, more: number): boolean {
    const held = this.#are("granted");
    return (
      held.length + more <= bounds.all &&
      held.filter((one) => one.caller === caller).length + more <= bounds.perCaller &&
      held.filter((one) => one.destination === destination).length + more <= bounds.perDestination
    );
  }

  #granted(asked: Asked, release: Release): void {
    asked.release = release;
    if (asked.state === "waiting") this.#mustBeItsTurn(asked);
    this.#heard(asked, "granted");
  }

  #mustBeItsTurn({ caller, destination, number }: Asked): void {
    const free = this.#are("waiting").filter((one) => this.#isWithin(one, 1));
    const isPassedOver = free.some(
      (one) => one.caller === caller && one.destination === destination && one.number < number,
    );
    if (isPassedOver) this.#problems.push(`${number} before an older one that is like it`);
    const { count = 0 } = this.#last?.caller === caller ? (this.#last ?? {}) : {};
    if (free.some((one) => one.caller !== caller && one.number < count))
      this.#problems.push(`${caller} twice, while another one waited`);
    this.#last = { caller, count: this.#asked.length };
  }

  /** Who is refused at once has its share of those who wait, and who no longer waits has the most. */
  #mustMakeRoom({ caller, state, number }: Asked): void {
    const counts = Object.groupBy(this.#are("waiting"), (one) => one.caller);
    const most = Math.max(...Object.values(counts).map((all) => all?.length ?? 0));
    const own = counts[caller]?.length ?? 0;
    const isFair = state === "waiting" ? own === most : own >= maxWaiting / 2 || own + 1 >= most;
    if (!isFair) this.#problems.push(`${number} of ${caller} makes room`);
  }

  #heard(asked: Asked, state: "granted" | "refused"): void {
    if (state === "refused" && Date.now() - asked.at < waitMs) this.#mustMakeRoom(asked);
    if (asked.state !== "asked" && asked.state !== "waiting")
      this.#problems.push(`${asked.number} was ${asked.state} and is ${state}`);
    asked.state = state;
  }
}

const claim = record({
  caller: constantFrom("a", "b", "c"),
  destination: constantFrom("one", "two"),
}) as Arbitrary<Claim>;
const place = nat({ max: 5 });
promise("places are given to those who may have one, in turn", () => new Claims(), [
  step<Claims, Claim>("take", claim, (world, one) => world.take(one)),
  step<Claims, Claim>("take", claim, (world, one) => world.take(one)),
  step<Claims, number>("release", place, (world, at) => world.release(at)),
  step<Claims, number>("withdraw", place, (world, at) => world.withdraw(at)),
  waits<Claims>(100, 500),
]);
