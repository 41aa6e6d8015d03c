/** Reads DER where node:crypto does not tell: element by element, with nothing kept and nothing guessed. */

/** One element. */
export interface DerElement {
  readonly tag: number;
  readonly contents: Buffer;
  /** With its tag and length. */
  readonly whole: Buffer;
}

/** The elements that stand one behind the other; throws an Error where the bytes are not DER. */
export function readElements(bytes: Buffer): DerElement[] {
  const found: DerElement[] = [];
  let at = 0;
  while (at < bytes.length) {
    const element = elementAt(bytes, at);
    found.push(element);
    at += element.whole.length;
  }
  return found;
}

function elementAt(bytes: Buffer, start: number): DerElement {
  const tag = bytes[start] ?? 0;
  // Tags of more than one byte do not occur in certificates.
  if ((tag & 0x1f) === 0x1f) throw new Error("it is not DER: a tag of several bytes");
  const first = bytes[start + 1];
  if (first === undefined) throw new Error("it is not DER: it ends in a tag");
  let length = first;
  let from = start + 2;
  if (first >= 0x80) {
    const count = first & 0x7f;
    if (count === 0 || count > 4) throw new Error("it is not DER: a length that is none");
    if (from + count > bytes.length) throw new Error("it is not DER: it ends in a length");
    length = bytes.readUIntBE(from, count);
    from += count;
    if (length < 0x80 || length < 2 ** (8 * (count - 1)))
      throw new Error("it is not DER: a length that is longer than it has to be");
  }
  if (from + length > bytes.length) throw new Error("it is not DER: it ends in an element");
  return {
    tag,
    contents: bytes.subarray(from, from + length),
    whole: bytes.subarray(start, from + length),
  };
}
