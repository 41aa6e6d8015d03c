/**
 * Things that come and go all the time: slots that are used again, not a Set.
 *
 * V8 links a Set's outgrown tables to their successors, and with constant turnover that makes the young generation's
 * collector keep what has passed through them.
 */
export class Slots<Item> {
  readonly #items: (Item | undefined)[] = [];
  readonly #free: number[] = [];

  get size(): number {
    return this.#items.length - this.#free.length;
  }

  /** The slot that {@link delete} is called with. */
  add(item: Item): number {
    const slot = this.#free.pop() ?? this.#items.length;
    this.#items[slot] = item;
    return slot;
  }

  delete(slot: number): void {
    this.#items[slot] = undefined;
    this.#free.push(slot);
  }

  /** What is there; items may be deleted and added meanwhile. */
  *[Symbol.iterator](): Generator<Item, void, undefined> {
    for (const item of this.#items) if (item !== undefined) yield item;
  }
}
