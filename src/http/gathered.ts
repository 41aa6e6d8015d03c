/** Bytes that come in pieces and are kept until all of them are there. */

/**
 * A smaller piece is copied behind the one before: as an object of its own a byte takes up more than a hundred, which
 * nobody counts.
 */
const smallBytes = 4_096;
const firstBlockBytes = 256;
const largestBlockBytes = 65_536;
const nothing = Buffer.alloc(0);

/** Takes up no more than a few times what was given to it, however small the pieces are. */
export class Gathered {
  #pieces: Buffer[] = [];
  /** The last small pieces. */
  #block = nothing;
  #used = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** A large piece is kept as it is: its memory is not to be reused. */
  push(piece: Buffer): void {
    this.#length += piece.length;
    if (piece.length >= smallBytes) {
      this.#seal();
      this.#pieces.push(piece);
      return;
    }
    if (this.#used + piece.length > this.#block.length) this.#grow(piece.length);
    piece.copy(this.#block, this.#used);
    this.#used += piece.length;
  }

  /** What is there, in order. */
  pieces(): readonly Buffer[] {
    this.#seal();
    return [...this.#pieces];
  }

  /** Everything in one piece; nothing is kept afterwards. */
  takeAll(): Buffer {
    this.#seal();
    const [first = nothing, ...others] = this.#pieces;
    const all = others.length === 0 ? first : Buffer.concat(this.#pieces, this.#length);
    this.clear();
    return all;
  }

  clear(): void {
    this.#pieces = [];
    this.#block = nothing;
    this.#used = 0;
    this.#length = 0;
  }

  #seal(): void {
    if (this.#used > 0) this.#pieces.push(this.#block.subarray(0, this.#used));
    this.#block = nothing;
    this.#used = 0;
  }

  #grow(bytes: number): void {
    if (this.#used + bytes > largestBlockBytes) this.#seal();
    const wanted = Math.max(firstBlockBytes, (this.#used + bytes) * 2);
    const grown = Buffer.allocUnsafe(Math.min(wanted, largestBlockBytes));
    this.#block.copy(grown, 0, 0, this.#used);
    this.#block = grown;
  }
}
