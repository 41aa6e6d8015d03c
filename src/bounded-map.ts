/** A map with a maximum size, so that remote input cannot make it grow without limit. */

/** V8 copies what is shorter. */
const leastShared = 13;

/**
 * The text in memory of its own: what is cut out of a text keeps all of that text, so that whoever remembers one field
 * of a request would remember its whole head.
 */
export function ownText(text: string): string {
  return text.length < leastShared ? text : ` ${text}`.slice(1);
}

/** A Map of at most `limit` entries, at least one: a new key takes the place of the oldest. */
export class BoundedMap<K, V> extends Map<K, V> {
  readonly #limit: number;

  constructor(limit: number) {
    super();
    this.#limit = limit;
  }

  override set(key: K, value: V): this {
    if (this.has(key)) return super.set(key, value);
    if (this.size >= this.#limit) {
      for (const oldest of this.keys()) {
        this.delete(oldest);
        break;
      }
    }
    return super.set(typeof key === "string" ? (ownText(key) as K & string) : key, value);
  }

  /** Makes the key the newest one, with this value. */
  renew(key: K, value: V): void {
    this.delete(key);
    this.set(key, value);
  }

  /** What is remembered for the key; what `make` returns is remembered when there is nothing. */
  getOrMake(key: K, make: () => V): V {
    const known = this.get(key);
    if (known !== undefined || this.has(key)) return known as V;
    const made = make();
    this.set(key, made);
    return made;
  }
}
