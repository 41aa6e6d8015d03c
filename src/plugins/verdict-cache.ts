/** Questions to a service that judges, and verdicts that are kept: both bounded. */
import { BoundedMap } from "../bounded-map.ts";
import type { Clock } from "../pipeline/plugin.ts";

/** What bounds a {@link VerdictCache}, and what it has to know of verdicts. */
export interface VerdictCacheOptions<Verdict> {
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly maxConcurrency: number;
  readonly cacheTtlMs: number;
  readonly maxEntries?: number;
  /** Who is asked, in words: the judge where absent. */
  readonly service?: string;
  /** The key that limits the time: timeout_ms where absent. */
  readonly timeoutKey?: string;
  /** The verdict where nobody could be asked. */
  unavailable(why: string): Verdict;
  /** Whether a verdict is kept: a service that is down is asked again. */
  isKept(verdict: Verdict): boolean;
}

/** A verdict and whether it was given before. */
export interface Ruling<Verdict> {
  readonly verdict: Verdict;
  readonly isCached: boolean;
}

/** Those who wait beyond this many times the places are turned away. */
const waitingPerPlace = 16;
const defaultEntries = 1_024;

/** Asks a service about each thing once at a time and keeps its verdicts. */
export class VerdictCache<Verdict> {
  readonly #options: VerdictCacheOptions<Verdict>;
  readonly #kept: BoundedMap<string, { readonly verdict: Verdict; readonly until: number }>;
  readonly #pending = new Map<string, Promise<Verdict>>();
  readonly #queue: ((isFree: boolean) => void)[] = [];
  #running = 0;

  constructor(options: VerdictCacheOptions<Verdict>) {
    this.#options = options;
    this.#kept = new BoundedMap(options.maxEntries ?? defaultEntries);
  }

  /**
   * The verdict on what `digest` stands for. Never rejects, if `ask` never does; that is given what is left of the time.
   */
  async rule(
    digest: string,
    ask: (timeoutMs: number) => Promise<Verdict>,
  ): Promise<Ruling<Verdict>> {
    const kept = this.#find(digest);
    if (kept !== undefined) return { verdict: kept.verdict, isCached: true };
    let pending = this.#pending.get(digest);
    if (pending === undefined) {
      pending = this.#judge(ask).finally(() => this.#pending.delete(digest));
      this.#pending.set(digest, pending);
    }
    const verdict = await pending;
    this.#keep(digest, verdict);
    return { verdict, isCached: false };
  }

  async #judge(ask: (timeoutMs: number) => Promise<Verdict>): Promise<Verdict> {
    const { timeoutMs } = this.#options;
    const startedAt = performance.now();
    const why = await this.#place(timeoutMs);
    if (why !== undefined) return this.#options.unavailable(why);
    try {
      return await ask(Math.max(1, Math.round(timeoutMs - (performance.now() - startedAt))));
    } finally {
      // A place that somebody waits for is handed over, so that nobody who comes now takes it.
      const next = this.#queue.shift();
      if (next === undefined) this.#running -= 1;
      else next(true);
    }
  }

  /** Waits for a place and takes it; returns why there is none. */
  async #place(timeoutMs: number): Promise<string | undefined> {
    const { maxConcurrency, service = "the judge", timeoutKey = "timeout_ms" } = this.#options;
    if (this.#running < maxConcurrency) {
      this.#running += 1;
      return undefined;
    }
    if (this.#queue.length >= maxConcurrency * waitingPerPlace) {
      return `too many actions wait for ${service} (max_concurrency)`;
    }
    const isFree = await new Promise<boolean>((resolve) => {
      const wake = (free: boolean): void => {
        clearTimeout(timer);
        resolve(free);
      };
      const timer = setTimeout(() => {
        this.#queue.splice(this.#queue.indexOf(wake), 1);
        resolve(false);
      }, timeoutMs);
      this.#queue.push(wake);
    });
    return isFree ? undefined : `${service} had no time (${timeoutKey})`;
  }

  #find(digest: string): { readonly verdict: Verdict } | undefined {
    const entry = this.#kept.get(digest);
    if (entry === undefined) return undefined;
    this.#kept.delete(digest);
    if (entry.until <= this.#options.clock.now()) return undefined;
    // Last in the Map is used last.
    this.#kept.set(digest, entry);
    return entry;
  }

  #keep(digest: string, verdict: Verdict): void {
    const { cacheTtlMs, clock } = this.#options;
    if (cacheTtlMs === 0 || !this.#options.isKept(verdict)) return;
    this.#kept.set(digest, { verdict, until: clock.now() + cacheTtlMs });
  }
}
