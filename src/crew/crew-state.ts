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

/** The stores by name. */
export class CrewState {
  readonly #parts: StateParts;
  readonly #log: Logger;
  readonly #named = new Map<string, OwnedStore>();
  /** What ends the subscriptions of each thread. */
  readonly #subscriptions = new Map<number, Map<string, () => void>>();

  constructor(parts: StateParts, log: Logger) {
    this.#parts = parts;
    this.#log = log;
  }

  answer(thread: number, { store: name, call }: Question, published: Published): unknown {
    const store = this.#of(name);
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
  }

  async close(): Promise<void> {
    for (const thread of this.#subscriptions.keys()) this.forget(thread);
    await Promise.all([...this.#named.values()].map((store) => store.close()));
  }

  #of(name: string): StateStore {
    const { store, sealed, shared } = this.#parts;
    if (name === "state") return store;
    if (name === "shared") return shared;
    if (name === "sealed" && sealed !== undefined) return sealed;
    if (!name.startsWith(at)) throw new ProxyError("internal.fault", "no such store");
    const url = name.slice(at.length);
    const key = hash("sha256", url);
    let named = this.#named.get(key);
    if (named === undefined) {
      named = this.#parts.at(url);
      this.#named.set(key, named);
      named.open().catch((error: unknown) => this.#log.error({ err: error }, "state store"));
    }
    return named;
  }
}
