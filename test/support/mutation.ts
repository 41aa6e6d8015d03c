/** Bytes that are nearly good, made from good ones, the same for the same seed. */

/** Numbers that look random, the same for the same seed. */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 1;
  }

  /** From 0 to below `size`. */
  below(size: number): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return (state >>> 0) % size;
  }

  oneOf<Item>(items: readonly Item[]): Item {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new RangeError("there is nothing to choose from");
    return item;
  }
}

/** The bytes as a network might cut them. */
export function inPieces(bytes: Buffer, dice: Dice): Buffer[] {
  if (bytes.length < 2) return [bytes];
  const places = Array.from({ length: 1 + dice.below(4) }, () => 1 + dice.below(bytes.length - 1));
  const cuts = [...new Set(places)].sort((one, other) => one - other);
  return [0, ...cuts].map((from, index) => bytes.subarray(from, cuts[index]));
}

const maxBytes = 40_000;

/** The bytes with a few changes, or with a part of others in them. */
export function mutated(
  bytes: Buffer,
  other: Buffer,
  dice: Dice,
  words: readonly string[],
): Buffer {
  let result = bytes;
  for (let left = 1 + dice.below(4); left > 0; left -= 1)
    result = changed(result, other, dice, words);
  return result.subarray(0, maxBytes);
}

function changed(bytes: Buffer, other: Buffer, dice: Dice, words: readonly string[]): Buffer {
  const at = dice.below(bytes.length + 1);
  const to = Math.min(bytes.length, at + 1 + dice.below(dice.oneOf([1, 4, 32])));
  const [before, part, after] = [bytes.subarray(0, at), bytes.subarray(at, to), bytes.subarray(to)];
  switch (dice.below(7)) {
    case 0:
      return Buffer.concat([before, Buffer.of(dice.below(256)), after]);
    case 1:
      return Buffer.concat([before, after]);
    case 2:
      return Buffer.concat([
        before,
        ...Array.from({ length: 2 + dice.below(4) }, () => part),
        after,
      ]);
    case 3:
      return Buffer.concat([before, other.subarray(dice.below(other.length + 1))]);
    case 4: {
      const piece = Buffer.from(part.toString("latin1").repeat(dice.oneOf([200, 2_000])), "latin1");
      return dice.below(8) === 0 ? Buffer.concat([before, piece, after]) : bytes;
    }
    default: {
      const word = Buffer.from(dice.oneOf(words), "latin1");
      return Buffer.concat([before, word, dice.below(2) === 0 ? after : bytes.subarray(at)]);
    }
  }
}
