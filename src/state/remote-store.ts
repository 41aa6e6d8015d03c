/** The state of a process as its other threads have it: each call is one question to the thread that holds the store. */
import { Channels } from "./channels.ts";
import {
  type Added,
  type Addition,
  type OwnedStore,
  type Soon,
  type StateStore,
  stateUnavailable,
} from "./store.ts";

/** One call of a store, as it crosses. */
export type StateCall =
  | { readonly kind: "get" | "delete"; readonly key: string }
  | {
      readonly kind: "set";
      readonly key: string;
      readonly value: string;
      readonly ttlMs?: number | undefined;
    }
  | { readonly kind: "add"; readonly additions: readonly Addition[] }
  | { readonly kind: "counters"; readonly keys: readonly string[] }
  | {
      readonly kind: "compareAndSet";
      readonly key: string;
      readonly expected: string | undefined;
      readonly value: string;
      readonly ttlMs?: number | undefined;
    }
  | { readonly kind: "publish"; readonly channel: string; readonly message: string }
  | { readonly kind: "subscribe" | "unsubscribe"; readonly channel: string }
  /** The thread has no use for the store any more. */
  | { readonly kind: "leave" };

/** Makes the call on the store itself. Who uses it and subscribes is the business of whoever has the other threads. */
export function callStore(store: StateStore, call: StateCall): Soon<unknown> {
  switch (call.kind) {
    case "get":
      return store.get(call.key);
    case "set":
      return store.set(call.key, call.value, call.ttlMs);
    case "delete":
      return store.delete(call.key);
    case "add":
      return store.add(call.additions);
    case "counters":
      return store.counters(call.keys);
    case "compareAndSet":
      return store.compareAndSet(call.key, call.expected, call.value, call.ttlMs);
    case "publish":
      return store.publish(call.channel, call.message);
    case "subscribe":
    case "unsubscribe":
    case "leave":
      return undefined;
  }
}

/** A store that another thread holds, opens and closes. `ask` rejects where that thread does not respond within its limit. */
export class RemoteStore implements OwnedStore {
  readonly #ask: (call: StateCall) => Promise<unknown>;
  readonly #channels = new Channels();
  readonly #subscribed = new Set<string>();
  readonly #onClosed: (() => void) | undefined;

  constructor(ask: (call: StateCall) => Promise<unknown>, onClosed?: () => void) {
    this.#ask = ask;
    this.#onClosed = onClosed;
  }

  open(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    this.#onClosed?.();
    // A holder that is gone has closed it.
    return this.#ask({ kind: "leave" }).then(
      () => undefined,
      () => undefined,
    );
  }

  get(key: string): Promise<string | undefined> {
    return this.#call({ kind: "get", key }) as Promise<string | undefined>;
  }

  set(key: string, value: string, ttlMs?: number): Promise<void> {
    return this.#call({ kind: "set", key, value, ttlMs }) as Promise<void>;
  }

  delete(key: string): Promise<void> {
    return this.#call({ kind: "delete", key }) as Promise<void>;
  }

  add(additions: readonly Addition[]): Promise<Added> {
    return this.#call({ kind: "add", additions }) as Promise<Added>;
  }

  counters(keys: readonly string[]): Promise<readonly number[]> {
    return this.#call({ kind: "counters", keys }) as Promise<readonly number[]>;
  }

  compareAndSet(
    key: string,
    expected: string | undefined,
    value: string,
    ttlMs?: number,
  ): Promise<boolean> {
    return this.#call({ kind: "compareAndSet", key, expected, value, ttlMs }) as Promise<boolean>;
  }

  publish(channel: string, message: string): Promise<void> {
    return this.#call({ kind: "publish", channel, message }) as Promise<void>;
  }

  subscribe(channel: string, listener: (message: string) => void): () => void {
    const tell = (kind: "subscribe" | "unsubscribe"): void => {
      // A holder that does not respond is noticed by the calls that somebody waits for.
      this.#ask({ kind, channel }).catch(() => undefined);
    };
    if (!this.#subscribed.has(channel)) {
      this.#subscribed.add(channel);
      tell("subscribe");
    }
    return this.#channels.subscribe(channel, listener, () => {
      this.#subscribed.delete(channel);
      tell("unsubscribe");
    });
  }

  /** A message was published on a channel that this store has subscribed to. */
  published(channel: string, message: string): void {
    this.#channels.publish(channel, message);
  }

  async #call(call: StateCall): Promise<unknown> {
    try {
      return await this.#ask(call);
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "state.unavailable")
        throw error;
      throw stateUnavailable("the thread that holds it does not respond", error);
    }
  }
}
