/** Undoes one coding of some bytes, and knows where in them a place of the result came from. */
import { constants, inflateRawSync, inflateSync } from "node:zlib";
import { hexadecimal, isOf } from "./byte-classes.ts";

const percent = 0x25;
const backslash = 0x5c;

/** Bytes without their escapes (percent, `\u0041`, `\x41`, `\n`), and how many bytes gave the first `upTo` of them. */
export function unescaped(
  bytes: Buffer,
  upTo = Number.POSITIVE_INFINITY,
): { readonly bytes: Buffer; readonly read: number } {
  const out = Buffer.allocUnsafe(bytes.length);
  let [at, size] = [0, 0];
  while (at < bytes.length && size < upTo) {
    const byte = bytes[at] ?? 0;
    if (byte === percent && isHex(bytes, at + 1, 2)) {
      out[size] = hexAt(bytes, at + 1, 2);
      [at, size] = [at + 3, size + 1];
    } else if (byte === backslash) {
      const [code, length] = escapeAt(bytes, at);
      // An escape of two characters or more gives at most two bytes, one of six at most three.
      size += code < 128 ? putByte(out, size, code) : out.write(String.fromCodePoint(code), size);
      at += length;
    } else {
      out[size] = byte;
      [at, size] = [at + 1, size + 1];
    }
  }
  return { bytes: out.subarray(0, size), read: at };
}

function putByte(out: Buffer, at: number, code: number): number {
  out[at] = code;
  return 1;
}

const short: ReadonlyMap<number, number> = new Map([
  [0x6e, 10],
  [0x74, 9],
  [0x72, 13],
  [0x62, 8],
  [0x66, 12],
]);

/** The character that the escape at a backslash stands for, and its length. */
function escapeAt(bytes: Buffer, at: number): readonly [code: number, length: number] {
  const letter = bytes[at + 1];
  if (letter === undefined) return [backslash, 1];
  if (letter === 0x75 && isHex(bytes, at + 2, 4)) {
    const code = hexAt(bytes, at + 2, 4);
    const isPair = code >= 0xd800 && code < 0xdc00 && bytes[at + 6] === backslash;
    if (isPair && bytes[at + 7] === 0x75 && isHex(bytes, at + 8, 4)) {
      const low = hexAt(bytes, at + 8, 4);
      if (low >= 0xdc00 && low < 0xe000)
        return [0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00), 12];
    }
    return [code, 6];
  }
  if (letter === 0x78 && isHex(bytes, at + 2, 2)) {
    const code = hexAt(bytes, at + 2, 2);
    // It stands for a byte; of those above ASCII only the two ways of writing text are told apart elsewhere.
    return [code, 4];
  }
  return letter < 0x80 ? [short.get(letter) ?? letter, 2] : [backslash, 1];
}

function isHex(bytes: Buffer, at: number, length: number): boolean {
  for (let index = at; index < at + length; index += 1)
    if (index >= bytes.length || !isOf(bytes, index, hexadecimal)) return false;
  return true;
}

function hexAt(bytes: Buffer, at: number, length: number): number {
  return Number.parseInt(bytes.toString("latin1", at, at + length), 16);
}

/** What a compressed stream that begins at `at` gives, as far as it is there; undefined where it is none. */
export function inflated(
  bytes: Buffer,
  at: number,
  maxBytes: number,
): { readonly bytes: Buffer; readonly coding: "gzip" | "deflate" } | "too-large" | undefined {
  const isGzip = bytes[at] === 0x1f && bytes[at + 1] === 0x8b && bytes[at + 2] === 8;
  if (!isGzip && !isZlib(bytes, at)) return undefined;
  const options = { maxOutputLength: maxBytes, finishFlush: constants.Z_SYNC_FLUSH };
  try {
    // The checksum at the end of gzip must not decide whether somebody looks.
    const clear = isGzip
      ? inflateRawSync(bytes.subarray(gzipBody(bytes, at)), options)
      : inflateSync(bytes.subarray(at), options);
    return { bytes: clear, coding: isGzip ? "gzip" : "deflate" };
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : "";
    return code === "ERR_BUFFER_TOO_LARGE" ? "too-large" : undefined;
  }
}

function isZlib(bytes: Buffer, at: number): boolean {
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
