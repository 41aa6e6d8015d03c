/** Listeners by channel, inside one process. */
export class Channels {
  readonly #listeners = new Map<string, Set<(message: string) => void>>();

  get names(): Iterable<string> {
    return this.#listeners.keys();
  }

  publish(channel: string, message: string): void {
    for (const listener of this.#listeners.get(channel) ?? []) listener(message);
  }

  /** Returns what ends the subscription; `onLast` runs when nobody listens to the channel any more. */
  subscribe(channel: string, listener: (message: string) => void, onLast?: () => void): () => void {
    const known = this.#listeners.get(channel) ?? new Set();
    this.#listeners.set(channel, known);
    // A function that subscribes twice is called twice.
    const own = (message: string): void => listener(message);
    known.add(own);
    return () => {
      if (!known.delete(own) || known.size > 0) return;
      this.#listeners.delete(channel);
      onLast?.();
    };
  }
}
