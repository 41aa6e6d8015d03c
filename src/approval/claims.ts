/** What only one of several threads and replicas may do: ask, decide, use a decision for once. */
import { type StateStore, stateUnavailable } from "../state/store.ts";
import { toldOf, type Verdict } from "./told.ts";

/** Claims in the store of `state`; they reject where it is away. */
export class Claims {
  readonly #store: StateStore;
  readonly #ttlMs: number;

  constructor(store: StateStore, ttlMs: number) {
    this.#store = store;
    this.#ttlMs = ttlMs;
  }

  /** The id of the question about this request: `mine`, or that of whoever was first. */
  async ask(digest: string, mine: string): Promise<string> {
    const key = askKey(digest);
    const isFirst = await this.#store.compareAndSet(key, undefined, mine, this.#ttlMs);
    return isFirst ? mine : ((await this.#store.get(key)) ?? mine);
  }

  /** The next request like this one is a question of its own. */
  async askOver(digest: string): Promise<void> {
    await this.#store.delete(askKey(digest));
  }

  /** What is decided: this, or what somebody has decided already. */
  async decide(verdict: Verdict): Promise<Verdict> {
    const key = `approval:decision:${verdict.id}`;
    const text = JSON.stringify(verdict);
    // Longer than the question is open, for an order that was given in its last moment.
    const ttlMs = 2 * this.#ttlMs;
    if (await this.#store.compareAndSet(key, undefined, text, ttlMs)) return verdict;
    const standing = toldOf(`{"kind":"decided","verdict":${(await this.#store.get(key)) ?? "{}"}}`);
    if (standing?.kind !== "decided") throw stateUnavailable("an earlier decision cannot be read");
    return standing.verdict;
  }

  /** False where it has been used. */
  async use({ id, until }: Verdict): Promise<boolean> {
    // Longer than it may be used, for a replica whose clock is behind.
    const ttlMs = Math.max(0, until - Date.now()) + this.#ttlMs;
    const key = `approval:used:${id}`;
    const { refusedAt } = await this.#store.add([{ key, by: 1, below: 1, ttlMs }]);
    return refusedAt === undefined;
  }
}

function askKey(digest: string): string {
  return `approval:of:${digest}`;
}
