/** Serves many look-ups with one pass: a look-up that comes while a pass runs waits for the next one. */

/** More are refused, so that a flood of connections cannot pile up here. */
const maxWaiting = 4096;

interface Waiting<Value> {
  readonly resolve: (value: Value | undefined) => void;
  readonly reject: (error: unknown) => void;
}

/** Collects keys and looks them up in passes that run one after the other. */
export class BatchedLookup<Key, Value> {
  readonly #pass: (wanted: ReadonlySet<Key>) => Promise<ReadonlyMap<Key, Value>>;
  #waiting = new Map<Key, Waiting<Value>[]>();
  #count = 0;
  #isRunning = false;

  constructor(pass: (wanted: ReadonlySet<Key>) => Promise<ReadonlyMap<Key, Value>>) {
    this.#pass = pass;
  }

  /** The result of a pass that starts after this call; undefined when the pass found none. */
  ask(key: Key): Promise<Value | undefined> {
    return new Promise((resolve, reject) => {
      if (this.#count >= maxWaiting) {
        reject(new Error("too many look-ups are waiting"));
        return;
      }
      this.#count += 1;
      const list = this.#waiting.get(key);
      if (list === undefined) this.#waiting.set(key, [{ resolve, reject }]);
      else list.push({ resolve, reject });
      if (!this.#isRunning) void this.#run();
    });
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#waiting.size > 0) {
      const asked = this.#waiting;
      this.#waiting = new Map();
      this.#count = 0;
      try {
        const found = await this.#pass(new Set(asked.keys()));
        for (const [key, list] of asked) for (const one of list) one.resolve(found.get(key));
      } catch (error) {
        for (const list of asked.values()) for (const one of list) one.reject(error);
      }
    }
    this.#isRunning = false;
  }
}
