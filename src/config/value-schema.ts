/**
 * The kinds of value that the file is made of: durations, sizes, addresses, hosts.
 *
 * They check and do not convert, so that the JSON Schema shows all of it; app/build converts with
 * `durationMs`, `sizeBytes` and `parseListenAddress`.
 */
import { isIP } from "node:net";
import { z } from "zod";
import { durationPattern, durationText, longestTimerMs, parseDuration } from "../duration.ts";
import { listenAddressPattern, parseListenAddress } from "./listen-address.ts";
import { parseSize, sizePattern } from "./size.ts";

interface DurationBounds {
  readonly minMs?: number;
  readonly maxMs?: number;
}

/** A Go duration. Positive unless `minMs: 0` is given. */
export function duration(bounds: DurationBounds = {}) {
  const { minMs = 1, maxMs = longestTimerMs } = bounds;
  const error = 'must be a duration such as "250ms", "30s" or "1h30m"';
  return z
    .string({ error })
    .regex(durationPattern, { error, abort: true })
    .refine((text) => (parseDuration(text) ?? -1) >= minMs, {
      error: `must be at least ${durationText(minMs)}`,
    })
    .refine((text) => (parseDuration(text) ?? 0) <= maxMs, {
      error: `must be at most ${durationText(maxMs)}`,
    });
}

/** A number of bytes, as an integer or as text with KiB, MiB or GiB. */
export function size(minBytes = 1) {
  const error = 'must be a number of bytes or a size such as "64KiB", "1MiB" or "2GiB"';
  return z
    .union([z.int(), z.string().regex(sizePattern, { error })], { error })
    .refine((value) => parseSize(value) !== undefined, { error, abort: true })
    .refine((value) => (parseSize(value) ?? minBytes) >= minBytes, {
      error: `must be at least ${minBytes} bytes`,
    });
}

/** A whole number from `min` to `max`. */
export function count(min: number, max = 1_000_000_000) {
  return z.int().min(min).max(max);
}

/** A listen address; the empty text means the same as leaving the key out. */
export function listenAddress() {
  const error = 'must be a listen address such as ":8080", "127.0.0.1:8080" or "[::1]:8080"';
  return z
    .union([z.literal(""), z.string().regex(listenAddressPattern, { error })], { error })
    .refine((text) => text === "" || parseListenAddress(text) !== undefined, { error });
}

/** A text that holds more than white space. */
export function words() {
  return z.string().regex(/\S/, { error: "must not be blank" });
}

/** An IPv4 or IPv6 address. */
export function ipAddress() {
  return z
    .string()
    .refine((text) => isIP(text) !== 0, { error: "must be an IPv4 or IPv6 address" });
}

/** An address or a CIDR block. */
export function addressBlock() {
  return z.string().refine(isAddressBlock, {
    error: 'must be an address or a CIDR block such as "10.0.0.0/8" or "fd00::/8"',
  });
}

function isAddressBlock(text: string): boolean {
  const [address = "", prefix, ...rest] = text.split("/");
  const family = isIP(address);
  if (family === 0 || rest.length > 0) return false;
  if (prefix === undefined) return true;
  return /^\d{1,3}$/.test(prefix) && Number(prefix) <= (family === 4 ? 32 : 128);
}

/** A DNS server: an address with an optional port; IPv6 in brackets when there is a port. */
export function dnsServer() {
  return z.string().refine(isDnsServer, {
    error: 'must be an address with an optional port, such as "10.0.0.53" or "[fd00::53]:5353"',
  });
}

function isDnsServer(text: string): boolean {
  if (isIP(text) !== 0) return true;
  const parsed = parseListenAddress(text);
  return parsed?.host !== undefined && isIP(parsed.host) !== 0 && parsed.port > 0;
}

/** A list that is empty when the key is left out. */
export function listOf<Item extends z.ZodType>(item: Item, max = 10_000) {
  return z.array(item).max(max).default([]);
}
