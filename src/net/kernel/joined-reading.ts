/** Reads a thing once for all who ask before the reading begins: what they get is never older than their question. */
export class JoinedReading<Key, Value> {
  readonly #read: (key: Key) => Promise<Value>;
  /** At most one of each key for a question that is open. */
  readonly #running = new Map<Key, Promise<Value>>();
  readonly #next = new Map<Key, Promise<Value>>();

  constructor(read: (key: Key) => Promise<Value>) {
    this.#read = read;
  }

  /** A reading that is under way began too early: who comes then waits for the one after it. */
  ask(key: Key): Promise<Value> {
    const next = this.#next.get(key);
    if (next !== undefined) return next;
    const running = this.#running.get(key);
    if (running === undefined) return this.#begin(key);
    const begin = (): Promise<Value> => this.#begin(key);
    const following = running.then(begin, begin);
    this.#next.set(key, following);
    return following;
  }

  #begin(key: Key): Promise<Value> {
    this.#next.delete(key);
    const reading = this.#read(key).finally(() => this.#running.delete(key));
    this.#running.set(key, reading);
    return reading;
  }
}
