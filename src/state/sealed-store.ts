/** Values that nobody reads where they are kept; counters, keys and channels are as they are. */
import type { KeyRing } from "./key-ring.ts";
import type { Added, Addition, Soon, StateStore } from "./store.ts";

/** Seals the values of another store. What does not open is not there. */
export class SealedStore implements StateStore {
  readonly #store: StateStore;
  readonly #keys: () => KeyRing;

  /** `keys` is asked at every call: they may change. */
  constructor(store: StateStore, keys: () => KeyRing) {
    this.#store = store;
    this.#keys = keys;
  }

  get(key: string): Soon<string | undefined> {
    return after(this.#store.get(key), (sealed) => this.#open(sealed, key));
  }

  set(key: string, value: string, ttlMs?: number): Soon<void> {
    return this.#store.set(key, this.#keys().seal(value, key), ttlMs);
  }

  delete(key: string): Soon<void> {
    return this.#store.delete(key);
  }

  add(additions: readonly Addition[]): Soon<Added> {
    return this.#store.add(additions);
  }

  counters(keys: readonly string[]): Soon<readonly number[]> {
    return this.#store.counters(keys);
  }

  compareAndSet(
    key: string,
    expected: string | undefined,
    value: string,
    ttlMs?: number,
  ): Soon<boolean> {
    // The same text is sealed differently every time: what is compared is what stands there.
    return after(this.#store.get(key), (sealed) => {
      if (this.#open(sealed, key) !== expected) return false;
      return this.#store.compareAndSet(key, sealed, this.#keys().seal(value, key), ttlMs);
    });
  }

  publish(channel: string, message: string): Soon<void> {
    return this.#store.publish(channel, this.#keys().seal(message, channel));
  }

  subscribe(channel: string, listener: (message: string) => void): () => void {
    return this.#store.subscribe(channel, (sealed) => {
      const message = this.#open(sealed, channel);
      if (message !== undefined) listener(message);
    });
  }

  #open(sealed: string | undefined, place: string): string | undefined {
    return sealed === undefined ? undefined : this.#keys().open(sealed, place);
  }
}

/** Goes on at once where nothing has to be waited for. */
function after<T, U>(value: Soon<T>, next: (value: T) => Soon<U>): Soon<U> {
  return value instanceof Promise ? value.then(next) : next(value);
}
