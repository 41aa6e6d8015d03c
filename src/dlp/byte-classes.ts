/** What kinds of character a byte can be, as bits. */

export const alphanumeric = 1;
export const digit = 2;
export const upper = 4;
/** A digit of base64 in either alphabet, without the padding. */
export const sixtyFour = 8;
/** A digit of base16. */
export const hexadecimal = 16;
/** It begins an escape. */
export const escape = 32;
/** A letter, a digit, `-` or `_`. */
export const word = 64;
export const lower = 128;

function classOf(byte: number): number {
  const text = String.fromCharCode(byte);
  const has = (pattern: RegExp, bit: number): number => (pattern.test(text) ? bit : 0);
  return (
    has(/[A-Za-z0-9]/, alphanumeric) |
    has(/[0-9]/, digit) |
    has(/[A-Z]/, upper) |
    has(/[A-Za-z0-9+/_-]/, sixtyFour) |
    has(/[0-9a-fA-F]/, hexadecimal) |
    has(/[%\\]/, escape) |
    has(/[A-Za-z0-9_-]/, word) |
    has(/[a-z]/, lower)
  );
}

/** The bits of each byte. */
export const classes: Uint8Array = Uint8Array.from({ length: 256 }, (_none, byte) => classOf(byte));

/** Whether the byte at this place is of the class; a place outside is of none. */
export function isOf(bytes: Uint8Array, at: number, bit: number): boolean {
  return ((classes[bytes[at] ?? 0] ?? 0) & bit) !== 0;
}

/** Where a run of the class that begins at `from` ends; it is looked at no further than `most` bytes. */
export function runEnd(bytes: Uint8Array, from: number, bit: number, most: number): number {
  const last = Math.min(bytes.length, from + most);
  let at = from;
  while (at < last && ((classes[bytes[at] as number] as number) & bit) !== 0) at += 1;
  return at;
}

/** Whether the byte before a place is of the class; the letter of a line end in JSON is no letter of the text. */
export function isBehind(bytes: Buffer, at: number, bit: number): boolean {
  if (at === 0 || !isOf(bytes, at - 1, bit)) return false;
  const letter = bytes[at - 1];
  return bytes[at - 2] !== 0x5c || (letter !== 0x6e && letter !== 0x72 && letter !== 0x74);
}
