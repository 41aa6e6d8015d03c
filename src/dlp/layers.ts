/** Undoes one coding of some bytes, and knows where in them a place of the result came from. */
import { constants, inflateRawSync, inflateSync } from "node:zlib";
import { classes, hexadecimal, isOf, sixtyFour } from "./byte-classes.ts";
import { Inflater } from "./inflate.ts";

const backslash = 0x5c;

/** The longest escape: two of UTF-16. */
const longestEscape = 12;

/** Bytes without their escapes. */
export interface Unescaped {
  readonly bytes: Buffer;
  /** Bytes that gave them. */
  readonly read: number;
  /** Places in the result from which on an escape gave, in {@link touchBytes} bytes, what a run of digits may go on with. */
  readonly touched: readonly number[];
}

/** Of one place of {@link Unescaped.touched}. */
export const touchBytes = 64;

/**
 * Bytes without their escapes (percent, `\u0041`, `\x41`, `\n`), or the first `upTo` of them. Where more follows, an escape
 * that may be cut is left alone.
 */
export function unescaped(
  bytes: Buffer,
  upTo = Number.POSITIVE_INFINITY,
  isMore = false,
): Unescaped {
  const { length } = bytes;
  const lastEscape = isMore ? length - longestEscape : length;
  const out = Buffer.allocUnsafe(length);
  const touched: number[] = [];
  let lastTouched = Number.NEGATIVE_INFINITY;
  let at = 0;
  let size = 0;
  while (at < length && size < upTo) {
    const byte = bytes[at] as number;
    if (byte !== backslash && byte !== 0x25) {
      out[size] = byte;
      size += 1;
      at += 1;
      continue;
    }
    if (at > lastEscape) break;
    const before = size;
    let long = 1;
    if (byte === backslash) {
      const code = codeAt(bytes, at);
      // An escape of two characters gives one byte, one of four at most two, one of six at most three.
      if (code < 128) out[size++] = code;
      else size += out.write(String.fromCodePoint(code), size);
      long = lengthAt(bytes, at);
    } else {
      const isOne = isHex(bytes, at + 1, 2);
      out[size] = isOne ? hexAt(bytes, at + 1, 2) : byte;
      size += 1;
      if (isOne) long = 3;
    }
    at += long;
    if (before - lastTouched >= touchBytes && long > 1 && isTouch(out[before] as number, long)) {
      touched.push(before);
      lastTouched = before;
    }
  }
  return { bytes: out.subarray(0, size), read: at, touched };
}

/** Whether runs of digits end otherwise with what an escape gave than with the escape. */
function isTouch(given: number, long: number): boolean {
  if (long > 2 || given === backslash || given === 0x0d) return true;
  return ((classes[given] as number) & sixtyFour) !== 0;
}

/** Whether an escape gave something in or beside a run. */
export function isTouched(touched: readonly number[], start: number, end: number): boolean {
  let [low, high] = [0, touched.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((touched[middle] as number) < start - touchBytes - 2) low = middle + 1;
    else high = middle;
  }
  return low < touched.length && (touched[low] as number) <= end + 2;
}

const short = new Uint8Array(128).map((_none, code) => code);
for (const [letter, code] of ["n\n", "t\t", "r\r", "b\b", "f\f"].map((pair) => [
  pair.charCodeAt(0),
  pair.charCodeAt(1),
]))
  short[letter as number] = code as number;

/** The character that the escape at a backslash stands for. */
function codeAt(bytes: Buffer, at: number): number {
  const letter = bytes[at + 1] ?? 0x80;
  if (letter === 0x75 && isHex(bytes, at + 2, 4)) {
    const code = hexAt(bytes, at + 2, 4);
    return isPair(bytes, at)
      ? 0x10000 + ((code - 0xd800) << 10) + (hexAt(bytes, at + 8, 4) - 0xdc00)
      : code;
  }
  if (letter === 0x78 && isHex(bytes, at + 2, 2)) return hexAt(bytes, at + 2, 2);
  return letter < 0x80 ? (short[letter] as number) : backslash;
}

function lengthAt(bytes: Buffer, at: number): number {
  const letter = bytes[at + 1] ?? 0x80;
  if (letter === 0x75 && isHex(bytes, at + 2, 4)) return isPair(bytes, at) ? 12 : 6;
  if (letter === 0x78 && isHex(bytes, at + 2, 2)) return 4;
  return letter < 0x80 ? 2 : 1;
}

/** Two escapes of UTF-16 for one character. */
function isPair(bytes: Buffer, at: number): boolean {
  if (bytes[at + 6] !== backslash || bytes[at + 7] !== 0x75 || !isHex(bytes, at + 8, 4))
    return false;
  const [high, low] = [hexAt(bytes, at + 2, 4), hexAt(bytes, at + 8, 4)];
  return high >= 0xd800 && high < 0xdc00 && low >= 0xdc00 && low < 0xe000;
}

function isHex(bytes: Buffer, at: number, length: number): boolean {
  for (let index = at; index < at + length; index += 1)
    if (index >= bytes.length || !isOf(bytes, index, hexadecimal)) return false;
  return true;
}

function hexAt(bytes: Buffer, at: number, length: number): number {
  let value = 0;
  for (let index = at; index < at + length; index += 1) {
    const byte = bytes[index] as number;
    value = value * 16 + (byte <= 0x39 ? byte - 0x30 : (byte & 0x5f) - 0x37);
  }
  return value;
}

/** What became of a stream; `spent` is what a broken one may have been unpacked to before it broke. */
export type Inflated =
  | { readonly kind: "clear"; readonly bytes: Buffer; readonly coding: "gzip" | "deflate" }
  | { readonly kind: "broken"; readonly coding: "gzip" | "deflate"; readonly spent: number }
  | { readonly kind: "too-large" };

/** Of a stream that is unpacked here. */
const shortStream = 512;

/** The most that a byte can be unpacked to. */
const maxRatio = 1_032;

/** What a compressed stream that begins at `at` gives, as far as it is there; undefined where none begins. */
export function inflated(bytes: Buffer, at: number, maxBytes: number): Inflated | undefined {
  const isGzip = bytes[at] === 0x1f && bytes[at + 1] === 0x8b && bytes[at + 2] === 8;
  if (!isGzip && !isZlib(bytes, at)) return undefined;
  const options = { maxOutputLength: maxBytes, finishFlush: constants.Z_SYNC_FLUSH };
  const coding = isGzip ? "gzip" : "deflate";
  // The platform takes long to begin.
  const short = inflate(bytes.subarray(at, at + shortStream), coding, maxBytes);
  if (short.isWhole) return { kind: "clear", bytes: short.clear, coding };
  try {
    // The checksum at the end of gzip must not decide whether somebody looks.
    const clear = isGzip
      ? inflateRawSync(bytes.subarray(gzipBody(bytes, at)), options)
      : inflateSync(bytes.subarray(at), options);
    return { kind: "clear", bytes: clear, coding };
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : "";
    if (code === "ERR_BUFFER_TOO_LARGE") return { kind: "too-large" };
    return { kind: "broken", coding, spent: Math.min(maxBytes, (bytes.length - at) * maxRatio) };
  }
}

/** What a stream that is broken gives before it is. */
export function inflatedSoFar(
  bytes: Buffer,
  at: number,
  coding: "gzip" | "deflate",
  maxBytes: number,
): Buffer {
  return inflate(bytes.subarray(at), coding, maxBytes).clear;
}

function inflate(bytes: Buffer, coding: "gzip" | "deflate", maxBytes: number) {
  const parts: Buffer[] = [];
  let size = 0;
  const inflater = new Inflater(coding === "gzip" ? "gzip" : "zlib", (clear) => {
    parts.push(Buffer.from(clear));
    size += clear.length;
    return size < maxBytes;
  });
  const isWhole = inflater.push(bytes) === "end";
  return { isWhole, clear: parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts) };
}

/** Whether a stream of zlib (RFC 1950) may begin here. */
export function isZlib(bytes: Buffer, at: number): boolean {
  const [first = 0, second = 0] = [bytes[at], bytes[at + 1]];
  return (first & 0x8f) === 8 && (first * 256 + second) % 31 === 0 && (second & 0x20) === 0;
}

/** Behind the header of gzip (RFC 1952 section 2.3). */
function gzipBody(bytes: Buffer, start: number): number {
  const flags = bytes[start + 3] ?? 0;
  let at = start + 10;
  if ((flags & 4) !== 0) at += 2 + (bytes[at] ?? 0) + 256 * (bytes[at + 1] ?? 0);
  for (const bit of [8, 16]) {
    if ((flags & bit) === 0) continue;
    const zero = bytes.indexOf(0, at);
    at = zero === -1 ? bytes.length : zero + 1;
  }
  return (flags & 2) === 0 ? at : at + 2;
}
