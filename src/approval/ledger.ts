/** Questions that are open and decisions that hold, as one thread knows them: folded from what is told. */
import { BoundedMap } from "../bounded-map.ts";
import type { Ask, Told, Verdict } from "./told.ts";

/** A question, and who has allowed it so far. */
export interface OpenAsk extends Ask {
  readonly votes: readonly string[];
}

/** How it stands with a question. */
export type Standing =
  | { readonly kind: "pending"; readonly ask: OpenAsk }
  | { readonly kind: "decided"; readonly verdict: Verdict }
  | { readonly kind: "over"; readonly why: "expired" | "withdrawn" | "used" };

const maxDecided = 10_000;

/** The state of all questions. */
export class Ledger {
  readonly #maxPending: number;
  readonly #pending = new Map<string, OpenAsk>();
  readonly #byDigest = new Map<string, string>();
  readonly #perCaller = new Map<string, number>();
  /** Places of questions that are not open yet. */
  readonly #reserved = new Map<string, number>();
  readonly #verdicts = new BoundedMap<string, Verdict>(maxDecided);
  /** Those that are over, and the requests that they were about, so that whoever polls is told. */
  readonly #ended = new BoundedMap<string, Exclude<Standing, { kind: "pending" }>>(maxDecided);
  readonly #requests = new BoundedMap<string, Ask["request"]>(2 * maxDecided);

  constructor(maxPending: number) {
    this.#maxPending = maxPending;
  }

  get pending(): readonly OpenAsk[] {
    return [...this.#pending.values()];
  }

  get size(): number {
    return this.#pending.size;
  }

  /** Takes a place for another question of this caller, or names the bound that forbids it: those at once share the places. */
  reserve(caller: string, maxPerCaller: number): string | undefined {
    const reserved = [...this.#reserved.values()].reduce((sum, one) => sum + one, 0);
    if (this.#pending.size + reserved >= this.#maxPending) return "approval.max_pending";
    const own = this.#reserved.get(caller) ?? 0;
    if ((this.#perCaller.get(caller) ?? 0) + own >= maxPerCaller)
      return "approval.max_pending_per_caller";
    this.#reserved.set(caller, own + 1);
    return undefined;
  }

  /** The question is about to be open, or will not be. */
  release(caller: string): void {
    leave(this.#reserved, caller);
  }

  get(id: string): OpenAsk | undefined {
    return this.#pending.get(id);
  }

  /** The open question about this very request. */
  about(digest: string): OpenAsk | undefined {
    const id = this.#byDigest.get(digest);
    return id === undefined ? undefined : this.#pending.get(id);
  }

  /** The decision that holds for this very request. */
  verdictOn(digest: string, session: string | undefined, now: number): Verdict | undefined {
    const verdict = this.#verdicts.get(digest);
    if (verdict === undefined) return undefined;
    if (verdict.until <= now) {
      this.#verdicts.delete(digest);
      return undefined;
    }
    const isElsewhere = verdict.scope === "session" && verdict.session !== session;
    return isElsewhere ? undefined : verdict;
  }

  /** A decision for once is used up. */
  used({ id, digest }: Verdict): void {
    if (this.#verdicts.get(digest)?.id === id) this.#verdicts.delete(digest);
    this.#ended.renew(id, { kind: "over", why: "used" });
  }

  /** How it stands with a question, and the request that it is about; undefined for an id that was never given out. */
  standing(id: string): (Standing & { readonly request: Ask["request"] }) | undefined {
    const request = this.#requests.get(id);
    const ask = this.#pending.get(id);
    const standing: Standing | undefined =
      ask === undefined ? this.#ended.get(id) : { kind: "pending", ask };
    return request === undefined || standing === undefined ? undefined : { ...standing, request };
  }

  /** How a question ended, also one that was never heard of here. */
  endOf(id: string): Exclude<Standing, { kind: "pending" }> | undefined {
    return this.#pending.has(id) ? undefined : this.#ended.get(id);
  }

  /** False where it changes nothing. */
  take(told: Told, now: number): boolean {
    switch (told.kind) {
      case "asked":
        return this.#open(told.ask, now);
      case "voted": {
        const ask = this.#pending.get(told.id);
        if (ask === undefined || ask.votes.includes(told.by)) return false;
        this.#pending.set(told.id, { ...ask, votes: [...ask.votes, told.by] });
        return true;
      }
      case "decided": {
        const { verdict } = told;
        const before = this.#verdicts.get(verdict.digest);
        if (before?.id === verdict.id || this.#isUsedOrDecided(verdict.id)) return false;
        this.#close(verdict.id, { kind: "decided", verdict });
        if (verdict.until > now) this.#verdicts.renew(verdict.digest, verdict);
        return true;
      }
      case "withdrawn":
        if (this.#isUsedOrDecided(told.id)) return false;
        return this.#close(told.id, { kind: "over", why: "withdrawn" });
    }
  }

  /** The questions whose time is over, which are closed. */
  expire(now: number): readonly Ask[] {
    const expired = this.pending.filter(({ expiresAt }) => expiresAt <= now);
    for (const { id } of expired) this.#close(id, { kind: "over", why: "expired" });
    return expired;
  }

  /** What only ended here was decided elsewhere before it did. */
  #isUsedOrDecided(id: string): boolean {
    const end = this.#ended.get(id);
    return end?.kind === "decided" || end?.why === "used";
  }

  #open(ask: Ask, now: number): boolean {
    const isKnown = this.#pending.has(ask.id) || this.#ended.has(ask.id);
    if (isKnown || ask.expiresAt <= now) return false;
    // Replicas count for themselves: together they may have a little more.
    if (this.#pending.size >= 2 * this.#maxPending) return false;
    this.#pending.set(ask.id, { ...ask, votes: [] });
    this.#byDigest.set(ask.digest, ask.id);
    this.#requests.renew(ask.id, ask.request);
    const { caller } = ask.request;
    this.#perCaller.set(caller, (this.#perCaller.get(caller) ?? 0) + 1);
    return true;
  }

  #close(id: string, end: Exclude<Standing, { kind: "pending" }>): boolean {
    const ask = this.#pending.get(id);
    this.#ended.renew(id, end);
    if (ask === undefined) return false;
    this.#pending.delete(id);
    if (this.#byDigest.get(ask.digest) === id) this.#byDigest.delete(ask.digest);
    leave(this.#perCaller, ask.request.caller);
    return true;
  }
}

/** One fewer of these; none are forgotten. */
export function leave(counts: Map<string, number>, key: string): void {
  const left = (counts.get(key) ?? 1) - 1;
  if (left === 0) counts.delete(key);
  else counts.set(key, left);
}
