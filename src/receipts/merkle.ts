/** The Merkle tree of RFC 6962: what its leaves and nodes are, and which parts of it a proof consists of. */
import { createHash } from "node:crypto";

const leafPrefix = Buffer.from([0]);
const nodePrefix = Buffer.from([1]);

/** The hash of one entry. */
export function leafHash(entry: string | Uint8Array): Buffer {
  return createHash("sha256").update(leafPrefix).update(entry).digest();
}

/** The hash of two subtrees. */
export function nodeHash(left: Uint8Array, right: Uint8Array): Buffer {
  return createHash("sha256").update(nodePrefix).update(left).update(right).digest();
}

/** A tree that only grows: of all its nodes it keeps the roots of its perfect subtrees, the largest first. */
export class CompactTree {
  #size: number;
  readonly #roots: Buffer[];

  /** Throws where a tree of this size has another number of perfect subtrees. */
  constructor(size = 0, roots: readonly Buffer[] = []) {
    if (roots.length !== subtrees(0, size).length) {
      throw new Error(`a tree of ${size} entries does not consist of ${roots.length} parts`);
    }
    this.#size = size;
    this.#roots = [...roots];
  }

  get size(): number {
    return this.#size;
  }

  get roots(): readonly Buffer[] {
    return this.#roots;
  }

  copy(): CompactTree {
    return new CompactTree(this.#size, this.#roots);
  }

  add(leaf: Buffer): void {
    let node = leaf;
    for (let rest = this.#size; rest % 2 === 1; rest = Math.floor(rest / 2)) {
      node = nodeHash(this.#roots.pop() ?? node, node);
    }
    this.#roots.push(node);
    this.#size += 1;
  }

  root(): Buffer {
    const [last = createHash("sha256").digest(), ...others] = this.#roots.toReversed();
    return others.reduce((right, left) => nodeHash(left, right), last);
  }
}

/** Entries from the first number up to, and without, the second one. */
export type Span = readonly [from: number, to: number];

/** The subtrees that prove that entry `index` is in a tree of `size` entries, the lowest first. */
export function inclusionSpans(index: number, size: number): Span[] {
  const spans: Span[] = [];
  let [from, to] = [0, size];
  while (to - from > 1) {
    const middle = from + splitOf(to - from);
    if (index < middle) {
      spans.push([middle, to]);
      to = middle;
    } else {
      spans.push([from, middle]);
      from = middle;
    }
  }
  return spans.reverse();
}

/** The root of the tree in which one leaf has these subtrees beside it, the lowest first. */
export function rootOf(
  leaf: Buffer,
  index: number,
  spans: readonly Span[],
  path: Buffer[],
): Buffer {
  return path.reduce((node, beside, at) => {
    const isRight = (spans[at]?.[0] ?? 0) > index;
    return isRight ? nodeHash(node, beside) : nodeHash(beside, node);
  }, leaf);
}

/** The subtrees that prove that a tree of `size` entries begins with the one of `older` entries, the lowest first. */
export function consistencySpans(older: number, size: number): Span[] {
  if (older === 0) return [];
  const spans: Span[] = [];
  let [from, to] = [0, size];
  while (to !== older) {
    const middle = from + splitOf(to - from);
    if (older <= middle) {
      spans.push([middle, to]);
      to = middle;
    } else {
      spans.push([from, middle]);
      from = middle;
    }
  }
  if (from !== 0) spans.push([from, to]);
  return spans.reverse();
}

/** Hashes some subtrees while the entries go by, from what is known of the entries before them. */
export class SpanHashes {
  readonly #spans: readonly { readonly span: Span; readonly tree: CompactTree }[];
  readonly #known = new Map<string, Buffer>();
  #next: number;

  /** `before`: the tree of all entries that do not go by. */
  constructor(spans: readonly Span[], before: CompactTree) {
    this.#next = before.size;
    const parts = subtrees(0, before.size).map((span, at) => ({ span, root: before.roots[at] }));
    for (const { span, root } of parts) if (root !== undefined) this.#known.set(String(span), root);
    this.#spans = spans.map((span) => {
      const [from, to] = span;
      if (to <= before.size || from >= before.size) return { span, tree: new CompactTree() };
      const within = parts.flatMap(({ span: part, root }) =>
        part[0] >= from && root !== undefined ? [root] : [],
      );
      return { span, tree: new CompactTree(before.size - from, within) };
    });
  }

  add(leaf: Buffer): void {
    for (const { span, tree } of this.#spans) {
      if (this.#next >= span[0] && this.#next < span[1]) tree.add(leaf);
    }
    this.#next += 1;
  }

  /** In the order of the spans; undefined where one of them is not whole. */
  result(): Buffer[] | undefined {
    const hashes = this.#spans.map(({ span, tree }) =>
      tree.size === span[1] - span[0] ? tree.root() : this.#known.get(String(span)),
    );
    return hashes.every((hash) => hash !== undefined) ? hashes : undefined;
  }
}

/** The perfect subtrees of which entries consist, the largest first; `from` is the beginning of one as large as all. */
function subtrees(from: number, to: number): Span[] {
  const spans: Span[] = [];
  let start = from;
  while (start < to) {
    const width = to - start;
    const size = 2 ** Math.floor(Math.log2(width));
    spans.push([start, start + size]);
    start += size;
  }
  return spans;
}

/** The largest power of two below a width. */
function splitOf(width: number): number {
  return 2 ** Math.floor(Math.log2(width - 1));
}
