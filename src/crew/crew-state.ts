/** The stores that threads have in common, as the thread in control serves them. */
import { hash } from "node:crypto";
import type { StateParts } from "../app/state-parts.ts";
import { ProxyError } from "../errors.ts";
import { callStore } from "../state/remote-store.ts";
import type { OwnedStore, StateStore } from "../state/store.ts";
import type { Logger } from "../telemetry/log.ts";
import type { ControlCalls } from "./calls.ts";

type Question = Parameters<ControlCalls["state"]>[0];

/** A message that a thread has subscribed to. */
export type Published = (store: string, channel: string, message: string) => void;

const at = "at ";

/** A store that plugins name by its address, and the threads that use it. */
interface Named {
  readonly store: OwnedStore;
  readonly threads: Set<number>;
}

/** The stores by name. */
export class CrewState {
  readonly #parts: StateParts;
  readonly #log: Logger;
  readonly #named = new Map<string, Named>();
  /** What ends the subscriptions of each thread. */
  readonly #subscriptions = new Map<number, Map<string, () => void>>();

  constructor(parts: StateParts, log: Logger) {
    this.#parts = parts;
    this.#log = log;
  }

  answer(thread: number, { store: name, call }: Question, published: Published): unknown {
    if (call.kind === "leave") return this.#leave(thread, digestOf(name));
    const store = this.#of(thread, name);
    if (call.kind !== "subscribe" && call.kind !== "unsubscribe") return callStore(store, call);
    const { channel } = call;
    const key = `${name} ${channel}`;
    const subscriptions = this.#subscriptions.get(thread) ?? new Map<string, () => void>();
    this.#subscriptions.set(thread, subscriptions);
    subscriptions.get(key)?.();
    subscriptions.delete(key);
    if (call.kind === "subscribe") {
      const end = store.subscribe(channel, (message) => published(name, channel, message));
      subscriptions.set(key, end);
    }
    return undefined;
  }

  /** The thread is gone. */
  forget(thread: number): void {
    for (const end of this.#subscriptions.get(thread)?.values() ?? []) end();
    this.#subscriptions.delete(thread);
    for (const key of this.#named.keys()) void this.#leave(thread, key);
  }

  async close(): Promise<void> {
    for (const thread of this.#subscriptions.keys()) this.forget(thread);
    await Promise.all([...this.#named.values()].map(({ store }) => store.close()));
  }

  /** The last one that goes closes it. */
  async #leave(thread: number, key: string): Promise<void> {
    const named = this.#named.get(key);
    if (named?.threads.delete(thread) !== true || named.threads.size > 0) return;
    this.#named.delete(key);
    await named.store.close();
  }

  #of(thread: number, name: string): StateStore {
    const { store, sealed, shared } = this.#parts;
    if (name === "state") return store;
    if (name === "shared") return shared;
    if (name === "sealed" && sealed !== undefined) return sealed;
    if (!name.startsWith(at)) throw new ProxyError("internal.fault", "no such store");
    const key = digestOf(name);
    let named = this.#named.get(key);
    if (named === undefined) {
      named = { store: this.#parts.at(name.slice(at.length)), threads: new Set() };
      this.#named.set(key, named);
      named.store.open().catch((error: unknown) => this.#log.error({ err: error }, "state store"));
    }
    named.threads.add(thread);
    return named.store;
  }
}

/** An address may hold a password. */
function digestOf(name: string): string {
  return hash("sha256", name);
}
