/** Reads parsed JSON of an unknown shape: a value of the wrong type counts as absent. */
import { ownText } from "../bounded-map.ts";

/** A JSON object. */
export type JsonObject = Readonly<Record<string, unknown>>;

const empty: JsonObject = Object.freeze({});

/** Whether the value is a JSON object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The object of a JSON text; undefined for anything else. */
export function parseJsonObject(text: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The object itself, or one without members. */
export function objectOf(value: unknown): JsonObject {
  return isObject(value) ? value : empty;
}

/** The objects of an array; what is none of them is passed over. */
export function objectsOf(value: unknown): readonly JsonObject[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

/** A text that is not empty. */
export function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

/** A finite number. */
export function numberOf(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

/** A count of tokens: a whole number that is not negative. */
export function countOf(value: unknown): number | undefined {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}

/** What tells the parts of a stream apart: a number or a text, as text; "0" where there is none. */
export function keyOf(...candidates: readonly unknown[]): string {
  for (const value of candidates) {
    if (typeof value === "string" || typeof value === "number") return String(value);
  }
  return "0";
}

/** Ends a text that was cut, as in the Go program. */
export const truncated = "…(truncated)";

/** The text, or its beginning in memory of its own. */
export function bounded(text: string, maxChars: number): string {
  return text.length <= maxChars ? text : ownText(text.slice(0, maxChars) + truncated);
}

/** What a service said, for agents and for logs: one line, bounded; nothing where it is no text. */
export function oneLine(said: unknown, maxChars: number): string {
  if (typeof said !== "string") return "";
  return bounded(said.replace(/[\p{Cc}\p{Cf}\s]+/gu, " ").trim(), maxChars);
}

/**
 * The form in which two names are one to such a decoder: `Params`, and `paramſ` as well, because Go's encoding/json
 * folds U+017F to s and U+212A to k.
 */
export function foldedName(name: string): string {
  return name.toUpperCase().toLowerCase();
}
