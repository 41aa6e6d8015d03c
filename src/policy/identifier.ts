/** Texts that name one thing among many of its kind: numbers, hashes, dates, UUIDs and the ids that services give out. */

const shapes: readonly RegExp[] = [
  /^\d+$/,
  /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i,
  // Hashes, whole and in the seven digits that git shows; a word has no digit.
  /^(?:(?:sha\d+|md5)[:-])?(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,128}$/i,
  // Dates and times of ISO 8601, the colons encoded or not.
  /^\d{4}-\d{2}-\d{2}(?:T\d{2}(?::|%3A)?\d{2}(?:(?::|%3A)?\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}(?::|%3A)?\d{2})?)?$/i,
  // ULID.
  /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/,
  // msg_01XFDUDY…, cus-9s6XKzkNRiz8i3.
  /^[a-z]{1,12}[_-](?=[A-Za-z]*\d)[0-9A-Za-z]{8,64}$/,
  // Random letters and digits.
  /^(?=[^\d]*\d)(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])[\w-]{20,128}$/,
];

/** Whether a text looks like one. */
export function isIdentifier(text: string): boolean {
  return text.length <= 160 && shapes.some((shape) => shape.test(text));
}
