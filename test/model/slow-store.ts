/** A store whose calls end when a step says so: done, not made, or made and not heard of. */
import type { Added, Addition, StateStore } from "../../src/state/store.ts";
import type { Outside } from "./interleaving.ts";

/** Somebody's way to a store that others have as well. */
export class SlowStore implements StateStore {
  readonly #store: StateStore;
  readonly #outside: Outside;
  readonly #onFailed: () => void;

  constructor(store: StateStore, outside: Outside, onFailed: () => void = () => undefined) {
    this.#store = store;
    this.#outside = outside;
    this.#onFailed = onFailed;
  }

  get(key: string): Promise<string | undefined> {
    return this.#call(() => this.#store.get(key));
  }

  set(key: string, value: string, ttlMs?: number): Promise<void> {
    return this.#call(() => this.#store.set(key, value, ttlMs));
  }

  delete(key: string): Promise<void> {
    return this.#call(() => this.#store.delete(key));
  }

  add(additions: readonly Addition[]): Promise<Added> {
    return this.#call(() => this.#store.add(additions));
  }

  counters(keys: readonly string[]): Promise<readonly number[]> {
    return this.#call(() => this.#store.counters(keys));
  }

  compareAndSet(
    key: string,
    expected: string | undefined,
    value: string,
    ttlMs?: number,
  ): Promise<boolean> {
    return this.#call(() => this.#store.compareAndSet(key, expected, value, ttlMs));
  }

  publish(channel: string, message: string): Promise<void> {
    return this.#call(() => this.#store.publish(channel, message));
  }

  subscribe(channel: string, listener: (message: string) => void): () => void {
    return this.#store.subscribe(channel, listener);
  }

  async #call<T>(effect: () => T | Promise<T>): Promise<T> {
    try {
      return await this.#outside.call(effect);
    } catch (error) {
      this.#onFailed();
      throw error;
    }
  }
}
