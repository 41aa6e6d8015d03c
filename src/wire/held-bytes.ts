/** What a client sent that nobody takes yet, in order. */

const smallPiece = 4_096;
const nothing = Buffer.alloc(0);

/** A queue of bytes. */
export class HeldBytes {
  #pieces: Buffer[] = [];
  length = 0;

  /** Behind what is held. */
  push(bytes: Buffer): void {
    const last = this.#pieces.at(-1);
    // A client that sends byte by byte must not hold a buffer for each of them.
    if (last !== undefined && last.length < smallPiece)
      this.#pieces[this.#pieces.length - 1] = Buffer.concat([last, bytes]);
    else this.#pieces.push(bytes);
    this.length += bytes.length;
  }

  /** In front of it. */
  unshift(bytes: Buffer): void {
    this.#pieces.unshift(bytes);
    this.length += bytes.length;
  }

  /** The next piece, as it came. */
  shift(): Buffer | undefined {
    const piece = this.#pieces.shift();
    if (piece !== undefined) this.length -= piece.length;
    return piece;
  }

  /** Everything; nothing is held afterwards. */
  takeAll(): Buffer {
    const all = this.#pieces.length === 0 ? nothing : Buffer.concat(this.#pieces);
    this.clear();
    return all;
  }

  clear(): void {
    this.#pieces = [];
    this.length = 0;
  }
}
