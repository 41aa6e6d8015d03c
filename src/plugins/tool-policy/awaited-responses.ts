/** Requests that servers sent to their clients, so that a response is let through only to what was asked. */
import { hash } from "node:crypto";
import { BoundedMap } from "../../bounded-map.ts";
import type { RpcId } from "../../http/json-rpc.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";
import { OtherThreads } from "../../pipeline/other-threads.ts";

/** The oldest are removed first: a server with this many requests does not wait for all responses. */
const maxAwaited = 4096;

/** Remembers the ids of requests of a server, by conversation. It is kept over reloads. */
export class AwaitedResponses {
  readonly #keys = new BoundedMap<string, true>(maxAwaited);
  /** To the other threads: the response may come by one of them. */
  readonly #others: OtherThreads | undefined;

  constructor({ isAlone, shared }: Pick<PluginDeps, "isAlone" | "shared">) {
    if (isAlone) return;
    this.#others = new OtherThreads(shared, "tool-policy awaited", (message) => {
      const key = message.slice(1);
      if (message.startsWith("+")) this.#keys.set(key, true);
      else this.#keys.delete(key);
    });
  }

  add(conversation: string, id: RpcId): void {
    const key = keyOf(conversation, id);
    this.#keys.set(key, true);
    void this.#others?.say(`+${key}`);
  }

  /** Whether the response was waited for; it is not any more. */
  take(conversation: string, id: RpcId): boolean {
    const key = keyOf(conversation, id);
    if (!this.#keys.delete(key)) return false;
    void this.#others?.say(`-${key}`);
    return true;
  }

  close(): void {
    this.#others?.close();
  }
}

/** Of one size, however long an id is. */
function keyOf(conversation: string, id: RpcId): string {
  return hash("sha256", JSON.stringify([conversation, id]));
}
