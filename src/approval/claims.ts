/** What only one of several threads and replicas may do: ask, decide, use a decision for once. */
import type { StateStore } from "../state/store.ts";
import type { Verdict } from "./told.ts";

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

  /** False where somebody has decided already. */
  async decide(verdict: Verdict): Promise<boolean> {
    const key = `approval:decision:${verdict.id}`;
    return this.#store.compareAndSet(key, undefined, JSON.stringify(verdict), this.#ttlMs);
  }

  /** False where it has been used. */
  async use({ id, until }: Verdict): Promise<boolean> {
    const ttlMs = Math.max(1, until - Date.now());
    const key = `approval:used:${id}`;
    const { refusedAt } = await this.#store.add([{ key, by: 1, below: 1, ttlMs }]);
    return refusedAt === undefined;
  }
}

function askKey(digest: string): string {
  return `approval:of:${digest}`;
}
