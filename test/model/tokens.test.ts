/** Issued tokens: nobody gets somebody else's, one call at a time asks for each, and a failure is nobody else's for long. */
import { type Arbitrary, constantFrom, nat, record } from "fast-check";
import { expect } from "vitest";
import { type Obtained, TokenCache, tokenCacheKey } from "../../src/oauth/token-cache.ts";
import type { IssuedToken, TokenResponse } from "../../src/oauth/token-response.ts";
import { OnceForAll } from "../../src/pipeline/once-for-all.ts";
import { Secret } from "../../src/secret.ts";
import { MemoryStore } from "../../src/state/memory-store.ts";
import { stateUnavailable } from "../../src/state/store.ts";
import {
  beginning,
  ends,
  Outside,
  promise,
  settled,
  step,
  type Step,
  stoppedClock,
  waits,
  type World,
} from "./interleaving.ts";
import { SlowStore } from "./slow-store.ts";

stoppedClock();

const skewMs = 30_000;
const rejectionMs = 5_000;
const callLimitMs = 30_000;

interface Ask {
  readonly thread: number;
  readonly subject: "alice" | "bob";
  readonly audience: "mail" | "files";
  readonly proof: number;
  /** What the endpoint says, should this one be the one that asks it. */
  readonly says: TokenResponse["kind"];
  readonly lifetimeMs: number;
}

/** The token of bob ends by itself. */
const endsAt = { alice: undefined, bob: beginning / 1000 + 90 };
const proofs = [{}, {}];

interface Caller {
  readonly key: string;
  readonly at: number;
  readonly abort: AbortController;
  hasLeft: boolean;
  obtained?: Obtained | Error;
}

interface Load {
  readonly key: string;
  readonly thread: number;
  readonly at: number;
  /** A login has ended meanwhile: what comes is used, and not kept. */
  isPassing: boolean;
}

interface Kept {
  readonly text: string;
  readonly until: number;
}

interface Rejection {
  readonly until: number;
  readonly proof: number;
}

/** What everybody has in common: callers, the endpoint, and that every token names whom it is for. */
abstract class Tokens implements World {
  readonly outside = new Outside(() => stateUnavailable("test"));
  readonly callers: Caller[] = [];
  readonly loads = new Set<Load>();
  begun = 0;
  #serial = 0;
  readonly #problems: unknown[] = [];

  protected abstract readonly caches: readonly TokenCache[];
  protected abstract ended(load: Load, ask: Ask, response: TokenResponse | undefined): void;
  protected abstract mayBegin(load: Load): boolean;

  ask(ask: Ask): Caller {
    const key = tokenCacheKey([ask.subject, ask.audience]);
    const abort = new AbortController();
    const caller: Caller = { key, at: Date.now(), abort, hasLeft: false };
    this.callers.push(caller);
    const request = {
      key,
      proof: proofs[ask.proof],
      subject: ask.subject,
      subjectExpiresAt: endsAt[ask.subject],
      exchangedFor: { digest: ask.subject },
      load: (signal: AbortSignal) => this.#load(key, ask, signal),
    };
    const cache = this.caches[ask.thread % this.caches.length];
    cache?.obtain(request, caller.abort.signal).then(
      (obtained) => this.#got(caller, ask, obtained),
      (error: Error) => (caller.obtained = error),
    );
    return caller;
  }

  leave(at: number): void {
    const waiting = this.callers.filter(
      ({ obtained, hasLeft }) => !hasLeft && obtained === undefined,
    );
    const caller = waiting[at % Math.max(1, waiting.length)];
    if (caller === undefined) return;
    caller.hasLeft = true;
    caller.abort.abort();
  }

  check(): void {
    expect(this.#problems).toEqual([]);
    for (const { hasLeft, obtained } of this.callers) {
      if (hasLeft) expect(obtained, "whoever leaves is not waited for").toBeDefined();
      else if (obtained !== undefined && "refused" in obtained && "reason" in obtained.refused)
        expect(obtained.refused.reason, "whoever stays is not cancelled").not.toBe("cancelled");
    }
  }

  async end(): Promise<void> {
    await this.outside.endAll();
    this.check();
    expect(this.loads.size, "no call goes on").toBe(0);
    expect(this.callers.filter(({ obtained }) => obtained === undefined)).toEqual([]);
  }

  #got(caller: Caller, { subject, audience }: Ask, obtained: Obtained): void {
    caller.obtained = obtained;
    if (obtained.kind !== "token") return;
    const [whose, where] = obtained.token.reveal().split(" ");
    if (whose !== subject || where !== audience || obtained.subject !== subject)
      this.#problems.push(`${subject} at ${audience} got the token of ${whose} at ${where}`);
  }

  async #load(key: string, ask: Ask, signal: AbortSignal): Promise<TokenResponse> {
    const cancelled: TokenResponse = { kind: "unavailable", reason: "cancelled" };
    if (signal.aborted) return cancelled;
    const load: Load = { key, thread: ask.thread, at: Date.now(), isPassing: false };
    if (!this.mayBegin(load)) this.#problems.push("two calls for one token");
    this.loads.add(load);
    this.begun += 1;
    const { promise: aborted, resolve } = Promise.withResolvers<TokenResponse>();
    signal.addEventListener("abort", () => resolve(cancelled));
    let response: TokenResponse | undefined;
    try {
      response = await Promise.race([aborted, this.outside.call(() => this.#response(ask))]);
      return response;
    } finally {
      this.loads.delete(load);
      this.ended(load, ask, response);
    }
  }

  #response({ subject, audience, says, lifetimeMs }: Ask): TokenResponse {
    if (says === "unavailable") return { kind: "unavailable", reason: "answered 500" };
    if (says === "rejected") return { kind: "rejected", status: 400 };
    this.#serial += 1;
    const token = new Secret(`${subject} ${audience} ${this.#serial}`);
    return { kind: "issued", token, expiresAt: Date.now() + lifetimeMs };
  }
}

/** Milliseconds since the epoch at which a cache forgets what the endpoint issued. */
function keptUntil({ subject }: Ask, { expiresAt = 0 }: IssuedToken): number {
  return Math.min(expiresAt - skewMs, (endsAt[subject] ?? Infinity) * 1000);
}

/** One thread: everything that the cache gives, or asks for, is what the model says. */
class OneThread extends Tokens {
  readonly cache = new TokenCache({ clock: Date });
  protected readonly caches = [this.cache];
  readonly #kept = new Map<string, Kept & { readonly subject: string }>();
  readonly #rejections = new Map<string, Rejection>();

  async asks(ask: Ask): Promise<void> {
    const key = tokenCacheKey([ask.subject, ask.audience]);
    const now = Date.now();
    const kept = this.#kept.get(key);
    const rejection = this.#rejections.get(key);
    const isLoading = [...this.loads].some((load) => load.key === key);
    const { begun } = this;
    const caller = this.ask(ask);
    await settled();
    const { obtained } = caller;
    if (kept !== undefined && kept.until > now) {
      expect(obtained).toMatchObject({ kind: "token", source: "cache" });
      expect(obtained).toHaveProperty("token", new Secret(kept.text));
    } else if (rejection !== undefined && rejection.until > now && rejection.proof === ask.proof) {
      expect(obtained).toMatchObject({ kind: "refused", source: "cache" });
    } else {
      this.#rejections.delete(key);
      expect(obtained, "what is not kept is asked for").toBeUndefined();
      expect(this.begun, "one call for all who wait").toBe(begun + (isLoading ? 0 : 1));
      return;
    }
    expect(this.begun, "what is kept is not asked for").toBe(begun);
  }

  forget(subject: string): void {
    for (const load of this.loads) load.isPassing = true;
    for (const [key, kept] of this.#kept) if (kept.subject === subject) this.#kept.delete(key);
    this.cache.forget(({ digest }) => digest === subject);
  }

  protected override ended(load: Load, ask: Ask, response: TokenResponse | undefined): void {
    if (response === undefined || load.isPassing) return;
    const now = Date.now();
    if (response.kind === "rejected")
      this.#rejections.set(load.key, { until: now + rejectionMs, proof: ask.proof });
    if (response.kind !== "issued") return;
    const until = keptUntil(ask, response);
    if (until <= now) return;
    this.#kept.set(load.key, { text: response.token.reveal(), until, subject: ask.subject });
  }

  protected override mayBegin({ key }: Load): boolean {
    return ![...this.loads].some((load) => load.key === key);
  }
}

/** Three threads: while nothing fails, one of them asks. */
class Threads extends Tokens {
  readonly #store = new SlowStore(
    new MemoryStore({ maxBytes: 1_048_576, clock: Date }),
    this.outside,
    () => (this.#isDisturbed = true),
  );
  protected readonly caches = Array.from(
    { length: 3 },
    () => new TokenCache({ clock: Date, others: new OnceForAll(this.#store, "tokens") }),
  );
  /** By key, until when the last token is kept. */
  readonly #keptUntil = new Map<string, number>();
  #isDisturbed = false;

  override leave(at: number): void {
    this.#isDisturbed = true;
    super.leave(at);
  }

  override async end(): Promise<void> {
    // Whoever waits for a thread that never says anything asks by itself.
    await this.outside.endAll(callLimitMs);
    await super.end();
  }

  protected override ended(load: Load, ask: Ask, response: TokenResponse | undefined): void {
    if (response?.kind !== "issued") this.#isDisturbed = true;
    else this.#keptUntil.set(load.key, keptUntil(ask, response));
  }

  protected override mayBegin({ key, thread, at }: Load): boolean {
    const others = [...this.loads].filter((load) => load.key === key);
    if (others.some((load) => load.thread === thread)) return false;
    if (this.#isDisturbed || this.#isLate(key, at)) return true;
    return others.length === 0 && (this.#keptUntil.get(key) ?? 0) <= at;
  }

  /** Whoever waits for longer asks by itself. */
  #isLate(key: string, at: number): boolean {
    return this.callers.some(
      (caller) =>
        caller.key === key && caller.obtained === undefined && at - caller.at >= callLimitMs,
    );
  }
}

const asks = record({
  thread: nat({ max: 2 }),
  subject: constantFrom("alice", "bob"),
  audience: constantFrom("mail", "files"),
  proof: nat({ max: 1 }),
  says: constantFrom("issued", "issued", "rejected", "unavailable"),
  lifetimeMs: constantFrom(20_000, 31_000, 60_000, 3_600_000),
}) as Arbitrary<Ask>;
const sameAsk: Omit<Ask, "thread"> = {
  subject: "alice",
  audience: "mail",
  proof: 0,
  says: "issued",
  lifetimeMs: 3_600_000,
};
const leaves = <W extends Tokens>(): Step<W> =>
  step("leave", nat({ max: 4 }), (world, at) => world.leave(at));

promise(
  "a cache gives each its own token, asks once for all who wait, and keeps failures for 5 s",
  () => new OneThread(),
  [
    step("ask", asks, (world, ask) => world.asks({ ...ask, thread: 0 })),
    step("ask", asks, (world, ask) => world.asks({ ...ask, thread: 0 })),
    leaves(),
    step("forget", constantFrom("alice", "bob"), (world, subject) => world.forget(subject)),
    ends("done", "done", "failed"),
    waits(1, 999, 4_999, 5_000, 30_000),
  ],
);

promise(
  "threads ask once between them while nothing fails, and nobody waits for ever",
  () => new Threads(),
  [
    step("ask", asks, (world, ask) => void world.ask(ask)),
    leaves(),
    ends("done"),
    ends("done"),
    ends("done", "failed", "unheard"),
    waits(1, 5_000, 30_000),
  ],
);

promise("threads that ask at about the same time ask once", () => new Threads(), [
  step("ask", nat({ max: 2 }), (world, thread) => void world.ask({ ...sameAsk, thread })),
  ends("done"),
  ends("done"),
]);
