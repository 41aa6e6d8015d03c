/** What must hold for any bytes that a peer of HTTP/1.1 sends, and bytes that are nearly good. */
import { requestDifference, responseDifference } from "./wire-differences.ts";
import { readLlhttp, readOurs } from "./wire-readers.ts";
import { readLlhttpResponse, readOurResponse } from "./wire-responses.ts";

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

/** One way to read bytes. */
export interface Target {
  readonly name: "requests" | "responses";
  /** What it came to, in a word that tells inputs of one kind from another; and what is wrong, if anything is. */
  check(
    bytes: Buffer,
    dice: Dice,
  ): Promise<{ readonly outcome: string; readonly problem?: string }>;
}

const knownFaults: ReadonlySet<string | undefined> = new Set([
  undefined,
  "MalformedMessage",
  "ClientFault",
]);

export const requestTarget: Target = {
  name: "requests",
  async check(bytes, dice) {
    const ours = await readOurs([bytes]);
    const last = ours.requests.at(-1)?.isWhole;
    const outcome = [ours.refused, Math.min(3, ours.requests.length), last].join();
    const different = requestDifference(bytes.toString("latin1"), ours, readLlhttp([bytes]));
    if (different !== undefined) return { outcome, problem: different };
    const parts = await readOurs(inPieces(bytes, dice));
    // Where in the bytes a head stops to make sense may change the words.
    const told = (reading: typeof ours): string =>
      JSON.stringify([reading.requests, reading.refused !== undefined]);
    return told(parts) === told(ours) ? { outcome } : { outcome, problem: "another split" };
  },
};

export const responseTarget: Target = {
  name: "responses",
  async check(bytes, dice) {
    const method = dice.oneOf(["GET", "GET", "HEAD"]);
    const ours = await readOurResponse(method, [bytes]);
    const { status, isWhole, refused, fault } = ours;
    const outcome = [
      refused,
      Math.floor(status / 100),
      isWhole,
      Math.min(2, ours.interim.length),
    ].join();
    if (!knownFaults.has(fault)) return { outcome, problem: `threw ${fault}: ${refused}` };
    const different = responseDifference(ours, readLlhttpResponse(method, [bytes]));
    if (different !== undefined) return { outcome, problem: `${method}: ${different}` };
    const parts = await readOurResponse(method, inPieces(bytes, dice));
    const told = (reading: typeof ours): string =>
      reading.isWhole ? JSON.stringify({ ...reading, refused: "" }) : "";
    return told(parts) === told(ours)
      ? { outcome }
      : { outcome, problem: `${method}: another split` };
  },
};

function inPieces(bytes: Buffer, dice: Dice): Buffer[] {
  if (bytes.length < 2) return [bytes];
  const places = Array.from({ length: 1 + dice.below(4) }, () => 1 + dice.below(bytes.length - 1));
  const cuts = [...new Set(places)].sort((one, other) => one - other);
  return [0, ...cuts].map((from, index) => bytes.subarray(from, cuts[index]));
}

const words = [
  "\r\n",
  "\n",
  "\r",
  "\r\n\r\n",
  " ",
  "\t",
  ":",
  ";",
  ",",
  "\0",
  "\x7f",
  "\xff",
  '"',
  "\\",
  "0",
  "5",
  "f",
  "00000000",
  "ffffffffffffffff",
  "-1",
  "0x",
  "9".repeat(20),
  "Content-Length: 5\r\n",
  "Content-Length: 0\r\n",
  "Transfer-Encoding: chunked\r\n",
  "Host: a\r\n",
  "Connection: close\r\n",
  "Connection: keep-alive\r\n",
  "Connection: upgrade\r\nUpgrade: x\r\n",
  "Expect: 100-continue\r\n",
  "TE: trailers\r\n",
  "0\r\n\r\n",
  "5\r\nhello\r\n",
  "1;a=b\r\nx\r\n",
  "X: y\r\n",
  " folded\r\n",
  "HTTP/1.1",
  "HTTP/1.0",
  "HTTP/1.1 100 Continue\r\n\r\n",
  "HTTP/1.1 200 OK\r\n",
  "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
  "CONNECT a:1 HTTP/1.1\r\n",
  "204",
  "304",
];
const maxBytes = 40_000;

/** The bytes with a few changes, or with a part of others in them. */
export function mutated(bytes: Buffer, other: Buffer, dice: Dice): Buffer {
  let result = bytes;
  for (let left = 1 + dice.below(4); left > 0; left -= 1) result = changed(result, other, dice);
  return result.subarray(0, maxBytes);
}

function changed(bytes: Buffer, other: Buffer, dice: Dice): Buffer {
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
