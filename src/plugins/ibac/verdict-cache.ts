/** Actions that wait for a verdict, and verdicts that are kept: both bounded. */
import { hash } from "node:crypto";
import { BoundedMap } from "../../bounded-map.ts";
import type { Clock } from "../../pipeline/plugin.ts";
import type { Question, Verdict } from "./judge.ts";

/** What bounds a {@link VerdictCache}. */
export interface VerdictCacheOptions {
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly maxConcurrency: number;
  readonly cacheTtlMs: number;
  readonly maxEntries?: number;
}

/** A verdict and whether it was given before. */
export interface Ruling {
  readonly verdict: Verdict;
  readonly isCached: boolean;
}

/** Those who wait beyond this many times the places are turned away. */
const waitingPerPlace = 16;
const defaultEntries = 1_024;

type Ask = (question: Question) => Promise<Verdict>;

/** Asks the judge about each action once at a time and keeps its verdicts. */
export class VerdictCache {
  readonly #options: VerdictCacheOptions;
  readonly #ask: Ask;
  readonly #kept: BoundedMap<string, { readonly verdict: Verdict; readonly until: number }>;
  readonly #pending = new Map<string, Promise<Verdict>>();
  readonly #queue: ((isFree: boolean) => void)[] = [];
  #running = 0;

  constructor(ask: Ask, options: VerdictCacheOptions) {
    this.#ask = ask;
    this.#options = options;
    this.#kept = new BoundedMap(options.maxEntries ?? defaultEntries);
  }

  /** The verdict on an action for an intent; `key` stands for the action. Never rejects. */
  async rule(intent: string, action: string, key: string): Promise<Ruling> {
    const digest = hash("sha256", `${intent.length}:${intent}${key}`);
    const kept = this.#find(digest);
    if (kept !== undefined) return { verdict: kept, isCached: true };
    let pending = this.#pending.get(digest);
    if (pending === undefined) {
      pending = this.#judge(intent, action).finally(() => this.#pending.delete(digest));
      this.#pending.set(digest, pending);
    }
    const verdict = await pending;
    this.#keep(digest, verdict);
    return { verdict, isCached: false };
  }

  async #judge(intent: string, action: string): Promise<Verdict> {
    const { timeoutMs } = this.#options;
    const startedAt = performance.now();
    const why = await this.#place(timeoutMs);
    if (why !== undefined) return { kind: "unavailable", why };
    try {
      const left = Math.round(timeoutMs - (performance.now() - startedAt));
      return await this.#ask({ intent, action, timeoutMs: left });
    } finally {
      // A place that somebody waits for is handed over, so that nobody who comes now takes it.
      const next = this.#queue.shift();
      if (next === undefined) this.#running -= 1;
      else next(true);
    }
  }

  /** Waits for a place and takes it; returns why there is none. */
  async #place(timeoutMs: number): Promise<string | undefined> {
    const { maxConcurrency } = this.#options;
    if (this.#running < maxConcurrency) {
      this.#running += 1;
      return undefined;
    }
    if (this.#queue.length >= maxConcurrency * waitingPerPlace) {
      return "too many actions wait for the judge (max_concurrency)";
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
    return isFree ? undefined : "the judge had no time (timeout_ms)";
  }

  #find(digest: string): Verdict | undefined {
    const entry = this.#kept.get(digest);
    if (entry === undefined) return undefined;
    this.#kept.delete(digest);
    if (entry.until <= this.#options.clock.now()) return undefined;
    // Last in the Map is used last.
    this.#kept.set(digest, entry);
    return entry.verdict;
  }

  /** Only verdicts are kept: a judge that is down is asked again. */
  #keep(digest: string, verdict: Verdict): void {
    const { cacheTtlMs, clock } = this.#options;
    if (cacheTtlMs === 0 || (verdict.kind !== "allow" && verdict.kind !== "deny")) return;
    this.#kept.set(digest, { verdict, until: clock.now() + cacheTtlMs });
  }
}
