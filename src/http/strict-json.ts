/**
 * JSON that every reader reads alike.
 *
 * Parsers differ on duplicate keys, byte order marks, encodings and numbers, and a policy that reads one value while
 * the server reads another is no policy: what could be read in two ways is not read at all (RFC 8259, RFC 7493).
 */
import { isUtf8 } from "node:buffer";

/** A JSON value, or why the text is none that is safe to judge. The reason never quotes the text. */
export type StrictJson =
  | {
      readonly kind: "json";
      readonly value: unknown;
      /** A number has so many digits that this reader may have rounded it. */
      readonly mayBeRounded?: true;
    }
  | { readonly kind: "invalid"; readonly reason: string };

/** What bounds one text. */
export interface StrictJsonOptions {
  /** Arrays and objects inside each other; 64 when absent. */
  readonly maxDepth?: number;
  /** Bytes of UTF-8, or characters of a string; unlimited when absent. */
  readonly maxBytes?: number;
  /** Refuses whole numbers past 2^53, which other readers keep and this one would round. */
  readonly exactIntegers?: boolean;
}

const defaultDepth = 64;
/** Ten megabytes of empty arrays stop the process for two seconds, and hold a gigabyte. */
const maxValues = 250_000;

/** Parses one JSON text: UTF-8 without byte order mark, no duplicate keys, bounded depth. Never throws. */
export function parseStrictJson(
  input: string | Uint8Array,
  options: StrictJsonOptions = {},
): StrictJson {
  const { maxDepth = defaultDepth, maxBytes, exactIntegers = false } = options;
  if (maxBytes !== undefined && input.length > maxBytes) {
    return invalid(`longer than ${maxBytes} bytes`);
  }
  const text = typeof input === "string" ? input : textOf(input);
  if (text === undefined) return invalid("not UTF-8");
  if (text.charCodeAt(0) === 0xfeff) return invalid("not valid JSON: it has a byte order mark");
  // Before the text is parsed: what parsing costs grows with the number of values, not with the bytes.
  const shape = shapeOf(text, maxDepth);
  if (shape.isTooDeep) return invalid(`nested deeper than ${maxDepth} levels`);
  if (shape.values > maxValues) return invalid(`of more than ${maxValues} values`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The message of the fault quotes the input.
    return invalid("not valid JSON");
  }
  if (exactIntegers && shape.hasLongNumber && hasInexactInteger(text)) {
    return invalid("not safe to read: a whole number has more digits than every reader keeps");
  }
  // Of a key that comes twice, the value has one.
  if (shape.keys !== countKeys(value)) {
    return invalid("not safe to read: an object has the same key twice");
  }
  return shape.hasLongNumber
    ? { kind: "json", value, mayBeRounded: true }
    : { kind: "json", value };
}

function invalid(reason: string): StrictJson {
  return { kind: "invalid", reason };
}

/** A byte order mark stays in the text, where it is seen. */
function textOf(bytes: Uint8Array): string | undefined {
  if (!isUtf8(bytes)) return undefined;
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
}

interface Shape {
  readonly keys: number;
  /** Values and members, as commas and brackets tell. */
  readonly values: number;
  readonly isTooDeep: boolean;
  readonly hasLongNumber: boolean;
}

/** Counts what stands outside the strings of a text; of one that is not JSON it counts something, and comes back. */
function shapeOf(text: string, maxDepth: number): Shape {
  let keys = 0;
  let values = 0;
  let depth = 0;
  let digits = 0;
  let hasLongNumber = false;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === 0x22) {
      at = stringEnd(text, at);
    } else if (code === 0x3a) {
      keys += 1;
    } else if (code === 0x2c) {
      values += 1;
    } else if (code === 0x7b || code === 0x5b) {
      values += 1;
      depth += 1;
      if (depth > maxDepth) return { keys, values, isTooDeep: true, hasLongNumber };
    } else if (code === 0x7d || code === 0x5d) {
      depth -= 1;
    }
    digits = code >= 0x30 && code <= 0x39 ? digits + 1 : 0;
    // 2^53 has 16 digits.
    hasLongNumber ||= digits >= 16;
  }
  return { keys, values, isTooDeep: false, hasLongNumber };
}

/** The place of the quote that ends the string which begins at `start`; the end of the text where there is none. */
export function stringEnd(text: string, start: number): number {
  let end = text.indexOf('"', start + 1);
  while (end !== -1 && isEscaped(text, end)) end = text.indexOf('"', end + 1);
  return end === -1 ? text.length : end;
}

function isEscaped(text: string, at: number): boolean {
  let before = at - 1;
  while (text.charCodeAt(before) === 0x5c) before -= 1;
  return (at - before) % 2 === 0;
}

/** Depth was checked on the text, so that this cannot exhaust the stack. */
function countKeys(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  let keys = 0;
  if (Array.isArray(value)) {
    for (const item of value) keys += countKeys(item);
    return keys;
  }
  // Nothing is inherited: what JSON.parse makes has the empty prototype of objects.
  const members = value as Readonly<Record<string, unknown>>;
  for (const name in members) keys += 1 + countKeys(members[name]);
  return keys;
}

function hasInexactInteger(text: string): boolean {
  for (const number of numbersIn(text))
    if (/^-?[0-9]{16,}$/.test(number) && !Number.isSafeInteger(Number(number))) return true;
  return false;
}

/** Whether JavaScript would write a number of this JSON text in another form than it has, or another number. */
export function hasOddNumber(text: string): boolean {
  for (const number of numbersIn(text)) if (String(Number(number)) !== number) return true;
  return false;
}

/** The numbers of a JSON text, as they are spelled. */
function* numbersIn(text: string): Generator<string, void> {
  for (let at = 0; at < text.length;) {
    const quote = text.indexOf('"', at);
    const end = quote === -1 ? text.length : quote;
    for (const [number] of text.slice(at, end).matchAll(/-?[0-9][-+0-9.eE]*/g)) yield number;
    at = quote === -1 ? end : stringEnd(text, quote) + 1;
  }
}
