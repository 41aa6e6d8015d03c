/** Bytes that the codings of one text, or of one stream, may come to. */

/** Each byte of a text may be decoded so often without being counted. */
const decodedShare = 8;

/** What is left of it, for everybody who decodes something of the same text. */
export class DecodeBudget {
  #limit: number;
  #spent = 0;
  /** There was more than the limit: what was not seen may hold anything. */
  isCut = false;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get left(): number {
    return this.#limit - this.#spent;
  }

  get limit(): number {
    return this.#limit;
  }

  /** More of the text itself. */
  grow(bytes: number): void {
    this.#limit += bytes * decodedShare;
  }

  /** Whether so many more bytes may be decoded. */
  spend(bytes: number): boolean {
    this.#spent += bytes;
    if (this.#spent > this.#limit) this.isCut = true;
    return this.#spent <= this.#limit;
  }
}
