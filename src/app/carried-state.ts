/** State that outlives a reload: token caches, key sets, the placeholder store. */
import type { PluginDeps } from "../pipeline/plugin.ts";

interface Carried {
  readonly value: object;
  readonly claims: Set<number>;
}

/** Values by key, each kept while a running generation claims it. */
export class CarriedState {
  readonly #values = new Map<string, Carried>();

  /** The value of a key, made when nobody has it yet, and claimed for a generation. */
  claim<T extends object>(generation: number, key: string, make: () => T): T {
    let carried = this.#values.get(key);
    if (carried === undefined) {
      carried = { value: make(), claims: new Set() };
      this.#values.set(key, carried);
    }
    carried.claims.add(generation);
    // The key names everything that the value depends on, its type included (PluginDeps.carry).
    return carried.value as T;
  }

  /** Gives values of this thread to the plugins of a generation. */
  holder(generation: number): PluginDeps["held"] {
    return (key, _methods, make) => this.claim(generation, key, make) as never;
  }

  /** The value of a key, if somebody has it. */
  peek(key: string): object | undefined {
    return this.#values.get(key)?.value;
  }

  /** The value of a key, claimed for a generation, if somebody has made it. */
  find(generation: number, key: string): object | undefined {
    const carried = this.#values.get(key);
    carried?.claims.add(generation);
    return carried?.value;
  }

  /** A thread of the process is gone: what it had of a value is nobody's. */
  threadEnded(thread: number): void {
    for (const { value } of this.#values.values()) {
      if ("threadEnded" in value && typeof value.threadEnded === "function") {
        (value as { threadEnded(thread: number): void }).threadEnded(thread);
      }
    }
  }

  /** Ends a generation's claims; values that nobody claims any more are closed. */
  async release(generation: number): Promise<void> {
    for (const [key, carried] of this.#values) {
      carried.claims.delete(generation);
      if (carried.claims.size > 0) continue;
      this.#values.delete(key);
      if (isCloseable(carried.value)) await carried.value.close();
    }
  }
}

function isCloseable(value: object): value is { close(): void | Promise<void> } {
  return "close" in value && typeof value.close === "function";
}
