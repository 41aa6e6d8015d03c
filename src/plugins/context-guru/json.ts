/** JSON: the shape and the first items of lists are kept, and what looks like trouble among the others. */
import { isObject, type JsonObject } from "../../http/json-access.ts";
import { parseStrictJson } from "../../http/strict-json.ts";
import { left } from "./draft.ts";
import { isSalient } from "./lines.ts";

const maxDepth = 64;
const leastChars = 120;
const mostLast = 3;

/** Shortens a text inside a value. */
export type ShortenText = (text: string, chars: number) => string;

/** A number with its digits as they came. */
interface ExactJson {
  rawJSON(text: string): unknown;
  isRawJSON(value: unknown): boolean;
}
const exact = JSON as unknown as ExactJson;

/** The value of a text that is one array or object; undefined for anything else, and for what readers read differently. */
export function jsonIn(text: string): JsonObject | readonly unknown[] | undefined {
  const start = /^\s*[[{]/.exec(text);
  if (start === null) return undefined;
  const read = parseStrictJson(text, { maxDepth });
  if (read.kind !== "json") return undefined;
  const value = read.mayBeRounded === true ? exactValue(text) : read.value;
  return isObject(value) || Array.isArray(value) ? value : undefined;
}

/** What a number loses in this program, a model would be told wrongly. */
function exactValue(text: string): unknown {
  const keep = (_key: string, value: unknown, context?: { readonly source?: string }): unknown =>
    typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value)
      ? exact.rawJSON(context?.source ?? String(value))
      : value;
  return JSON.parse(text, keep);
}

/** The value within so many characters, about; the same value where it fits. */
export function shortenValue(value: unknown, chars: number, text: ShortenText): unknown {
  if (fits(value, chars)) return value;
  if (typeof value === "string") return text(value, Math.max(leastChars, chars));
  if (Array.isArray(value)) return shortenArray(value, chars, text);
  return isObject(value) && !exact.isRawJSON(value) ? shortenObject(value, chars, text) : value;
}

function shortenArray(items: readonly unknown[], chars: number, text: ShortenText): unknown[] {
  const each = Math.max(leastChars, chars * 0.35);
  const head: unknown[] = [];
  let room = chars * 0.7;
  for (const item of items) {
    const kept = shortenValue(item, each, text);
    room -= sizeOf(kept);
    if (room < 0 && head.length > 0) break;
    head.push(kept);
  }
  const tail: unknown[] = [];
  room = chars * 0.2;
  while (tail.length < mostLast && head.length + tail.length < items.length) {
    const kept = shortenValue(items[items.length - 1 - tail.length], each, text);
    room -= sizeOf(kept);
    if (room < 0) break;
    tail.unshift(kept);
  }
  const end = items.length - tail.length;
  if (head.length === end) return [...head, ...tail];
  const middle: unknown[] = [];
  room = chars * 0.1;
  let out = 0;
  const note = (): void => {
    if (out > 0) middle.push(left(out, "items"));
    out = 0;
  };
  for (let at = head.length; at < end; at += 1) {
    const item = items[at];
    if (room <= 0 || !isTrouble(item)) {
      out += 1;
      continue;
    }
    const kept = shortenValue(item, leastChars, text);
    room -= sizeOf(kept);
    note();
    middle.push(kept);
  }
  note();
  return [...head, ...middle, ...tail];
}

function shortenObject(value: JsonObject, chars: number, text: ShortenText): JsonObject {
  const names = Object.keys(value);
  let large = 0;
  let small = 0;
  for (const name of names) {
    if (fits(value[name], leastChars)) small += name.length + sizeOf(value[name]);
    else large += 1;
  }
  const each = Math.max(leastChars, (chars - Math.min(small, chars / 2)) / Math.max(1, large));
  const members: [string, unknown][] = [];
  let room = chars;
  for (const name of names) {
    const kept = shortenValue(value[name], each, text);
    room -= name.length + 4 + sizeOf(kept);
    if (room < 0 && members.length > 0) break;
    members.push([name, kept]);
  }
  if (members.length < names.length) {
    members.push([freeName(value, "…"), left(names.length - members.length, "members")]);
  }
  return Object.fromEntries(members);
}

/** A name that the object does not have. */
export function freeName(value: JsonObject, name: string): string {
  let free = name;
  while (Object.hasOwn(value, free)) free += "_";
  return free;
}

/** Whether an item reports trouble, by its own words. */
function isTrouble(item: unknown): boolean {
  if (typeof item === "string") return isSalient(item);
  if (!isObject(item)) return false;
  for (const name in item) {
    const value = item[name];
    if (typeof value === "string" && value.length <= 400 && isSalient(value)) return true;
  }
  return false;
}

function sizeOf(value: unknown): number {
  return (JSON.stringify(value)?.length ?? 0) + 1;
}

/** Whether a value takes no more than so many characters; looks no further than that. */
function fits(value: unknown, chars: number): boolean {
  return roomAfter(value, chars) >= 0;
}

function roomAfter(value: unknown, room: number): number {
  if (typeof value === "string") return room - value.length - 3;
  if (typeof value !== "object" || value === null) return room - 6;
  let left = room - 2;
  if (Array.isArray(value)) {
    for (const item of value) {
      left = roomAfter(item, left);
      if (left < 0) return left;
    }
    return left;
  }
  const members = value as JsonObject;
  for (const name in members) {
    left = roomAfter(members[name], left - name.length - 3);
    if (left < 0) return left;
  }
  return left;
}
