/** A list of the operator's API that is asked for again and again for as long as it is shown. */
import { element } from "./dom.js";

const lookEveryMs = 2_000;

/** @template Item */
export class LiveList {
  root = element("div");
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;
  #shown = "";
  #read;
  #keyOf;
  #card;
  #empty;

  /**
   * @param {object} parts
   * @param {() => Promise<readonly Item[]>} parts.read
   * @param {(item: Item) => unknown} parts.keyOf what of an item changes its card
   * @param {(item: Item) => HTMLElement} parts.card
   * @param {string} parts.empty what stands there where there is none
   */
  constructor({ read, keyOf, card, empty }) {
    this.#read = read;
    this.#keyOf = keyOf;
    this.#card = card;
    this.#empty = empty;
  }

  async open() {
    this.close();
    this.#timer = setInterval(() => void this.#look().catch(() => undefined), lookEveryMs);
    await this.#look();
  }

  close() {
    clearInterval(this.#timer);
  }

  /** Shows what is there now, changed or not. */
  async renew() {
    this.#shown = "";
    await this.#look();
  }

  async #look() {
    const items = await this.#read();
    const shown = JSON.stringify(items.map(this.#keyOf));
    // What somebody is about to press must not move.
    if (shown === this.#shown) return;
    this.#shown = shown;
    const cards = items.map(this.#card);
    this.root.replaceChildren(...(cards.length === 0 ? [element("p", {}, this.#empty)] : cards));
  }
}
