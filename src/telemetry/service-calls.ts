/** How the services that the operator's file names have answered: identity providers, OPA, judges, bundles, collectors. */
import { BoundedMap } from "../bounded-map.ts";

/** One service, as far as this process asked it. Milliseconds; times in RFC 3339. */
export interface ServiceView {
  /** Scheme, name and port, or the path of a socket. */
  readonly origin: string;
  readonly calls: number;
  /** Calls without a response. */
  readonly failures: number;
  /** Of the last call. */
  readonly ok: boolean;
  readonly lastAt: string;
  readonly lastMs: number;
  /** Of the calls that were answered, newer ones counting more. */
  readonly meanMs?: number;
  /** Why the last one that failed did; without the words of the service. */
  readonly lastFailure?: string;
}

/** A call; `why` where no response came. */
export type ServiceCall = readonly [origin: string, ms: number, why?: string];

const maxServices = 64;
/** Of calls that are to be told to another thread. */
const maxUntold = 1_000;
/** The share of the newest call in the mean. */
const weight = 0.2;

interface Tally {
  calls: number;
  failures: number;
  ok: boolean;
  lastAt: number;
  lastMs: number;
  meanMs: number | undefined;
  lastFailure: string | undefined;
}

/** Counts calls by service; services that a reload took away stay until others need their place. */
export class ServiceCalls {
  readonly #tallies = new BoundedMap<string, Tally>(maxServices);
  /** Undefined where nobody asks. */
  #untold: ServiceCall[] | undefined;

  /** A response came, whatever its status; `ms` is how long it took. */
  answered(origin: string, ms: number): void {
    const tally = this.#count(origin, ms);
    this.#note([origin, ms]);
    tally.ok = true;
    tally.meanMs = tally.meanMs === undefined ? ms : tally.meanMs + (ms - tally.meanMs) * weight;
  }

  /** None came; `why` is the code of a fault. */
  failed(origin: string, ms: number, why: string): void {
    const tally = this.#count(origin, ms);
    this.#note([origin, ms, why]);
    tally.ok = false;
    tally.failures += 1;
    tally.lastFailure = why;
  }

  /** The calls since this was asked last, for the thread that shows them; none of those before it was asked first. */
  changes(): readonly ServiceCall[] {
    const untold = this.#untold ?? [];
    this.#untold = [];
    return untold;
  }

  /** Adds the calls of another thread. */
  add(calls: readonly ServiceCall[]): void {
    for (const [origin, ms, why] of calls) {
      if (why === undefined) this.answered(origin, ms);
      else this.failed(origin, ms, why);
    }
  }

  view(): readonly ServiceView[] {
    return [...this.#tallies].map(([origin, tally]) => ({
      origin,
      calls: tally.calls,
      failures: tally.failures,
      ok: tally.ok,
      lastAt: new Date(tally.lastAt).toISOString(),
      lastMs: tenths(tally.lastMs),
      ...(tally.meanMs === undefined ? {} : { meanMs: tenths(tally.meanMs) }),
      ...(tally.lastFailure === undefined ? {} : { lastFailure: tally.lastFailure }),
    }));
  }

  #note(call: ServiceCall): void {
    if (this.#untold !== undefined && this.#untold.length < maxUntold) this.#untold.push(call);
  }

  #count(origin: string, ms: number): Tally {
    const tally = this.#tallies.getOrMake(origin, () => ({
      calls: 0,
      failures: 0,
      ok: true,
      lastAt: 0,
      lastMs: 0,
      meanMs: undefined,
      lastFailure: undefined,
    }));
    tally.calls += 1;
    tally.lastAt = Date.now();
    tally.lastMs = ms;
    return tally;
  }
}

const tenths = (ms: number): number => Math.round(ms * 10) / 10;
