/** The instances of a plugin in the other threads of the process: a channel on which nobody hears itself. */
import { randomBytes } from "node:crypto";
import type { StateStore } from "../state/store.ts";

/** All but the one that speaks. */
export class OtherThreads {
  readonly #store: StateStore;
  readonly #channel: string;
  readonly #name = randomBytes(8).toString("base64url");
  readonly #end: () => void;

  constructor(store: StateStore, channel: string, hear: (message: string) => void) {
    this.#store = store;
    this.#channel = channel;
    this.#end = store.subscribe(channel, (text) => {
      const at = text.indexOf(" ");
      if (text.slice(0, at) !== this.#name) hear(text.slice(at + 1));
    });
  }

  /** Resolves when it is on its way to all others, also where nobody can be reached. */
  async say(message: string): Promise<void> {
    try {
      await this.#store.publish(this.#channel, `${this.#name} ${message}`);
    } catch {
      // Who waits for what the others would have known refuses.
    }
  }

  close(): void {
    this.#end();
  }
}
