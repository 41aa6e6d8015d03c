/** Finds a set of short words in bytes, whatever their case, with one look-up a byte (Aho and Corasick). */

/** A table of states: `next[state * 256 + byte]`. From `firstEnd` on, a state is one where `word[state - firstEnd]` ends. */
export interface Triggers {
  readonly next: Uint16Array;
  readonly firstEnd: number;
  readonly word: Uint8Array;
}

/** The automaton of at most 255 words; where one word ends in another, the longer one is told. */
export function triggersOf(words: readonly string[]): Triggers {
  const edges: Map<number, number>[] = [new Map()];
  const ends: number[] = [0];
  for (const [index, text] of words.entries()) {
    let state = 0;
    for (const byte of Buffer.from(text.toLowerCase(), "latin1")) {
      let target = edges[state]?.get(byte);
      if (target === undefined) {
        target = edges.push(new Map()) - 1;
        ends.push(0);
        edges[state]?.set(byte, target);
      }
      state = target;
    }
    ends[state] = index + 1;
  }
  const next = new Uint16Array(edges.length * 256);
  const fallback = new Uint16Array(edges.length);
  // By depth: the state that a mismatch falls back to is complete before those that need it.
  const queue = [0];
  for (const state of queue) {
    const back = fallback[state] ?? 0;
    if (ends[state] === 0) ends[state] = ends[back] ?? 0;
    for (let byte = 0; byte < 256; byte += 1) {
      const after = state === 0 ? 0 : (next[back * 256 + folded(byte)] ?? 0);
      const target = edges[state]?.get(folded(byte));
      if (target === undefined) next[state * 256 + byte] = after;
      else {
        next[state * 256 + byte] = target;
        if (folded(byte) !== byte) continue;
        fallback[target] = after;
        queue.push(target);
      }
    }
  }
  return sorted(next, ends);
}

/** The states at which a word ends come last: one comparison says whether a state is one of them. */
function sorted(next: Uint16Array, ends: readonly number[]): Triggers {
  const states = [...ends.keys()];
  const order = [
    ...states.filter((one) => ends[one] === 0),
    ...states.filter((one) => ends[one] !== 0),
  ];
  const place = new Uint16Array(order.length);
  for (const [index, state] of order.entries()) place[state] = index;
  const moved = new Uint16Array(next.length);
  for (const [index, state] of order.entries())
    for (let byte = 0; byte < 256; byte += 1)
      moved[index * 256 + byte] = place[next[state * 256 + byte] ?? 0] ?? 0;
  const firstEnd = states.filter((one) => ends[one] === 0).length;
  const word = Uint8Array.from(order.slice(firstEnd), (state) => (ends[state] ?? 1) - 1);
  return { next: moved, firstEnd, word };
}

function folded(byte: number): number {
  return byte >= 0x41 && byte <= 0x5a ? byte + 32 : byte;
}
