/** Requests that servers sent to their clients, so that a response is let through only to what was asked. */
import { hash } from "node:crypto";
import { BoundedMap } from "../../bounded-map.ts";
import type { RpcId } from "../../http/json-rpc.ts";

/** The oldest are removed first: a server with this many requests does not wait for all responses. */
const maxAwaited = 4096;

/** Remembers the ids of requests of a server, by conversation. It is kept over reloads. */
export class AwaitedResponses {
  readonly #keys = new BoundedMap<string, true>(maxAwaited);

  add(conversation: string, id: RpcId): void {
    this.#keys.set(keyOf(conversation, id), true);
  }

  /** Whether the response was waited for; it is not any more. */
  take(conversation: string, id: RpcId): boolean {
    return this.#keys.delete(keyOf(conversation, id));
  }
}

/** Of one size, however long an id is. */
function keyOf(conversation: string, id: RpcId): string {
  return hash("sha256", JSON.stringify([conversation, id]));
}
