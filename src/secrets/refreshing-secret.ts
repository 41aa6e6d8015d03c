/** A secret that is fetched by one caller for all, renewed in the background, and served until it ends. */
import type { Clock } from "../duration.ts";
import { ProxyError } from "../errors.ts";
import { fetchedForAll, type SecretCodec, type SharedFetch } from "./fetched-for-all.ts";
import {
  type Fetched,
  type Held,
  type SecretFetcher,
  type SecretSource,
  type SecretWatch,
  unavailable,
} from "./secret-source.ts";

/** Calls back later, unless what it returns is called before. */
export type Later = (milliseconds: number, call: () => void) => () => void;

/** Options of a {@link RefreshingSecret}. */
export interface RefreshingSecretOptions<T, Means> {
  readonly name: string;
  readonly fetcher: SecretFetcher<T, Means>;
  readonly clock: Clock;
  readonly watch: SecretWatch;
  /** Longest that one who asks is kept waiting. */
  readonly maxWaitMs: number;
  /** Longest that one fetch takes. */
  readonly timeoutMs: number;
  /** What other threads have fetched under this key; absent where there are none. */
  readonly others?: Pick<SharedFetch<T>, "shared" | "key"> | undefined;
  readonly codec: SecretCodec<T>;
  readonly later?: Later;
  /** From 0 to 1, for the jitter. */
  readonly random?: () => number;
}

/** Without a value, a provider that failed is asked again by those who need one, this seldom. */
const leastRetryMs = 1_000;
const mostRetryMs = 60_000;
/** A value that was refused is asked for anew this seldom: the provider may have no other. */
const leastAnewMs = 10_000;
/** Timers of Node take no more than 24.8 days. */
const longestTimerMs = 24 * 3_600_000;
const leastTimerMs = 200;
/** Parts of a life at which a value is renewed, and up to which other threads take it instead of asking. */
const renewFrom = 0.7;
const renewSpread = 0.1;
const sharedUntil = 0.65;
/** The same of an interval: nothing ends with it. */
const readFrom = 0.9;
const readSharedUntil = 0.85;

/** One secret of one provider. */
export class RefreshingSecret<T, Means> implements SecretSource<T> {
  readonly name: string;
  readonly #options: RefreshingSecretOptions<T, Means>;
  readonly #later: Later;
  readonly #random: () => number;
  readonly #means = new Set<Means>();
  readonly #closing = new AbortController();
  #held: Fetched<T> | undefined;
  #renewAt = Number.POSITIVE_INFINITY;
  #flight: Promise<void> | undefined;
  #anew: Promise<void> | undefined;
  #problem: string | undefined;
  #failures = 0;
  #triedAt = Number.NEGATIVE_INFINITY;
  #anewAt = Number.NEGATIVE_INFINITY;
  #cancelTimer: (() => void) | undefined;
  #hasBegun = false;

  constructor(options: RefreshingSecretOptions<T, Means>) {
    this.name = options.name;
    this.#options = options;
    this.#later = options.later ?? laterByTimer;
    this.#random = options.random ?? Math.random;
  }

  /** Takes the means of a generation, which are used while they are the newest; what it returns takes them back. */
  lend(means: Means): () => void {
    this.#means.add(means);
    return () => void this.#means.delete(means);
  }

  begin(): void {
    if (this.#hasBegun) return;
    this.#hasBegun = true;
    void this.#refresh();
  }

  notReady(): string | undefined {
    if (this.#held !== undefined) return undefined;
    return `${this.name} pending (${this.#problem ?? "not fetched yet"})`;
  }

  current(signal?: AbortSignal): Held<T> | Promise<Held<T>> {
    const held = this.#valid();
    if (held === undefined) return this.#awaited(signal);
    // A clock that was set forward, or a process that was stopped: no timer has told.
    if (this.#options.clock.now() >= this.#renewAt && this.#mayAsk()) void this.#refresh();
    return held;
  }

  async another(refused: T): Promise<boolean> {
    const { clock, codec, others } = this.#options;
    const isOther = (): boolean => {
      const held = this.#valid();
      return held !== undefined && codec.write(held.value) !== codec.write(refused);
    };
    if (isOther()) return true;
    const since = clock.now() - this.#anewAt;
    if (since < 0 || since >= leastAnewMs) {
      this.#anewAt = clock.now();
      this.#anew = (others?.shared.forget(others.key) ?? Promise.resolve()).then(() =>
        this.#refresh(),
      );
    }
    await this.#anew;
    return isOther();
  }

  close(): void {
    this.#closing.abort();
    this.#cancelTimer?.();
    this.#options.fetcher.close?.();
    this.#options.watch.closed(this.name);
  }

  #valid(): Fetched<T> | undefined {
    const held = this.#held;
    const { expiresAt = Number.POSITIVE_INFINITY } = held ?? {};
    return expiresAt > this.#options.clock.now() ? held : undefined;
  }

  #mayAsk(): boolean {
    const since = this.#options.clock.now() - this.#triedAt;
    return this.#problem === undefined || since < 0 || since >= leastRetryMs;
  }

  async #awaited(signal: AbortSignal | undefined): Promise<Held<T>> {
    if (this.#flight !== undefined || this.#mayAsk()) {
      const ended = Promise.withResolvers<void>();
      const cancel = this.#later(this.#options.maxWaitMs, ended.resolve);
      const leave = (): void => ended.resolve();
      signal?.addEventListener("abort", leave, { once: true });
      await Promise.race([this.#refresh(), ended.promise]);
      signal?.removeEventListener("abort", leave);
      cancel();
    }
    const held = this.#valid();
    if (held !== undefined) return held;
    const { maxWaitMs } = this.#options;
    const why = this.#problem ?? `the provider gave nothing within ${maxWaitMs} ms (max_wait)`;
    // Whoever sent the request learns which source it is; the provider's words are for the operator.
    throw unavailable(`no value from ${this.name}`, new Error(why));
  }

  /** The fetch that is under way, or a new one. Never rejects. */
  #refresh(): Promise<void> {
    this.#flight ??= this.#load().finally(() => {
      this.#flight = undefined;
    });
    return this.#flight;
  }

  async #load(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    const { clock, watch } = this.#options;
    this.#cancelTimer?.();
    const means = [...this.#means].at(-1);
    try {
      if (means === undefined) throw unavailable("nothing serves that could fetch it");
      const fetched = await this.#asked(means);
      // Another thread does not end its fetch with this source.
      if (this.#closing.signal.aborted) return;
      if ((fetched.expiresAt ?? Number.POSITIVE_INFINITY) <= clock.now())
        throw unavailable("the provider gave a value that has expired by this machine's clock");
      this.#held = fetched;
      this.#problem = undefined;
      this.#failures = 0;
      this.#plan(fetched);
      watch.fetched(this.name, fetched);
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      // The generation that was asking has ended, and took its connections along.
      const isOfAnother = means !== undefined && !this.#means.has(means) && this.#means.size > 0;
      if (isOfAnother) return this.#load();
      this.#problem = error instanceof ProxyError ? error.message : `it failed (${nameOf(error)})`;
      this.#triedAt = clock.now();
      watch.failed(this.name, this.#problem);
      this.#failures += 1;
      const wait = Math.min(mostRetryMs, leastRetryMs * 2 ** (this.#failures - 1));
      this.#wake(wait * (0.5 + this.#random() / 2));
    }
  }

  /** What the provider gives to the first thread that asks, or gave to another one. */
  async #asked(means: Means): Promise<Fetched<T>> {
    const { others, timeoutMs, codec } = this.#options;
    const fetch = (): Promise<Fetched<T>> => this.#fetched(means);
    if (others === undefined) return fetch();
    const written: SecretCodec<Fetched<T>> = {
      write: ({ value, ...times }) => JSON.stringify({ ...times, text: codec.write(value) }),
      read: (told) => {
        const { text, ...times } = JSON.parse(told) as Omit<Fetched, "value"> & { text: string };
        return { ...times, value: codec.read(text) };
      },
    };
    const keepMs = (made: Fetched<T>): number => this.#sharedMs(made);
    return fetchedForAll({ ...others, limitMs: 2 * timeoutMs, codec: written, keepMs }, fetch);
  }

  /** One fetch, which ends in time whatever the provider does. */
  async #fetched(means: Means): Promise<Fetched<T>> {
    const { fetcher, timeoutMs } = this.#options;
    const ending = new AbortController();
    const late = Promise.withResolvers<never>();
    const end = (problem: string): void => {
      late.reject(unavailable(problem));
      ending.abort();
    };
    const cancel = this.#later(timeoutMs, () =>
      end(`the provider took longer than ${timeoutMs} ms (timeout)`),
    );
    const close = (): void => end("the source was closed");
    this.#closing.signal.addEventListener("abort", close, { once: true });
    try {
      return await Promise.race([fetcher.fetch(means, ending.signal), late.promise]);
    } finally {
      cancel();
      this.#closing.signal.removeEventListener("abort", close);
    }
  }

  #plan({ expiresAt, refreshAt }: Fetched<T>): void {
    const now = this.#options.clock.now();
    const spread = this.#random() * renewSpread;
    const byLife = expiresAt === undefined ? undefined : (expiresAt - now) * (renewFrom + spread);
    const byInterval =
      refreshAt === undefined ? undefined : (refreshAt - now) * (readFrom + spread);
    const after = Math.min(
      byLife ?? Number.POSITIVE_INFINITY,
      byInterval ?? Number.POSITIVE_INFINITY,
    );
    this.#renewAt = now + after;
    if (after !== Number.POSITIVE_INFINITY) this.#wake(after);
  }

  /** All threads renew later than that: what one of them has made then is newer for all. */
  #sharedMs({ expiresAt, refreshAt }: Fetched<T>): number {
    const now = this.#options.clock.now();
    const life = ((expiresAt ?? Number.POSITIVE_INFINITY) - now) * sharedUntil;
    const interval = ((refreshAt ?? Number.POSITIVE_INFINITY) - now) * readSharedUntil;
    return Math.min(life, interval, longestTimerMs);
  }

  #wake(milliseconds: number): void {
    this.#cancelTimer?.();
    const wait = Math.min(longestTimerMs, Math.max(leastTimerMs, milliseconds));
    this.#cancelTimer = this.#later(wait, () => {
      if (wait < milliseconds) this.#wake(milliseconds - wait);
      else void this.#refresh();
    });
  }
}

function laterByTimer(milliseconds: number, call: () => void): () => void {
  const timer = setTimeout(call, milliseconds).unref();
  return () => clearTimeout(timer);
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : typeof error;
}
