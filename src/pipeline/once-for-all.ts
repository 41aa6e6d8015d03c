/** What the threads of one process do once between them: one of them makes a text, and the others wait for it. */
import type { StateStore } from "../state/store.ts";

/** What was made; it is kept for those who ask later for `keepMs`, and 0 is for those who wait now. */
export interface Made {
  readonly text: string;
  readonly keepMs: number;
}

const nothing = "-";
const something = "+";

/** One kind of texts. */
export class OnceForAll {
  readonly #store: StateStore;
  readonly #name: string;

  /** The store is the one that threads share; `name` is that of the plugin and of what it makes. */
  constructor(store: StateStore, name: string) {
    this.#store = store;
    this.#name = name;
  }

  /**
   * The text of another thread, or undefined where `make` was called here, and has to be again by the next one who asks if
   * it made nothing. Whoever waits longer than the limit makes it.
   */
  async othersOr(
    key: string,
    limitMs: number,
    make: () => Promise<Made | undefined>,
  ): Promise<string | undefined> {
    let isFirst: boolean;
    try {
      const kept = await this.#store.get(this.#kept(key));
      if (kept !== undefined) return kept;
      isFirst = await this.#store.compareAndSet(this.#under(key), undefined, "", limitMs);
    } catch {
      // Without the store each thread is by itself.
      await make();
      return undefined;
    }
    if (!isFirst) {
      const text = await this.#waited(key, limitMs);
      if (text !== undefined) return text;
      await make();
      return undefined;
    }
    let made: Made | undefined;
    try {
      const meanwhile = await this.#madeMeanwhile(key);
      if (meanwhile === undefined) made = await make();
      else made = { text: meanwhile, keepMs: 0 };
      return meanwhile;
    } finally {
      await this.#end(key, made);
    }
  }

  /** Makes it be made anew by the next who asks. */
  async forget(key: string): Promise<void> {
    try {
      await this.#store.delete(this.#kept(key));
    } catch {
      // It ends by itself.
    }
  }

  /** What another kept and ended after this one had asked for it, and before this one was the first. */
  async #madeMeanwhile(key: string): Promise<string | undefined> {
    try {
      return await this.#store.get(this.#kept(key));
    } catch {
      return undefined;
    }
  }

  async #end(key: string, made: Made | undefined): Promise<void> {
    try {
      if (made !== undefined && made.keepMs > 0)
        await this.#store.set(this.#kept(key), made.text, made.keepMs);
    } catch {
      // Without room for it the others make their own.
    }
    try {
      await this.#store.delete(this.#under(key));
      await this.#store.publish(
        this.#under(key),
        made === undefined ? nothing : `${something}${made.text}`,
      );
    } catch {
      // Those who wait do so until their limit.
    }
  }

  /** Undefined where nothing came, or nothing was made. */
  async #waited(key: string, limitMs: number): Promise<string | undefined> {
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    const end = this.#store.subscribe(this.#under(key), (message) =>
      resolve(message.startsWith(something) ? message.slice(1) : undefined),
    );
    const timer = setTimeout(() => resolve(undefined), limitMs);
    try {
      // It may have ended before this was heard: then nobody says it again.
      if ((await this.#store.get(this.#under(key))) === undefined)
        resolve(await this.#store.get(this.#kept(key)));
      return await promise;
    } catch {
      return undefined;
    } finally {
      clearTimeout(timer);
      end();
    }
  }

  #kept(key: string): string {
    return `${this.#name} made ${key}`;
  }

  #under(key: string): string {
    return `${this.#name} in the making ${key}`;
  }
}
