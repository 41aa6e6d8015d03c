/**
 * Sizes in bytes: a whole number, or a number with KiB, MiB or GiB.
 */

/** What a size in words looks like, for the schema of the file. */
export const sizePattern = /^\d{1,15}(?:B|KiB|MiB|GiB)?$/;

const bytesPerUnit: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
};

/** Bytes of a size, or undefined for a value that is not one. */
export function parseSize(value: number | string): number | undefined {
  if (typeof value === "number")
    return Number.isSafeInteger(value) && value >= 0 ? value : undefined;
  if (!sizePattern.test(value)) return undefined;
  const digits = /^\d+/.exec(value)?.[0] ?? "";
  const bytes = Number(digits) * (bytesPerUnit[value.slice(digits.length)] ?? Number.NaN);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** Bytes of a size that the schema has already accepted. */
export function sizeBytes(value: number | string): number {
  const bytes = parseSize(value);
  if (bytes === undefined) throw new TypeError("not a size");
  return bytes;
}
