/** The canonical request of AWS Signature Version 4 and 4A: one spelling for everything that is signed. */
import type { HeaderList } from "../../http/headers.ts";

/** SHA-256 of nothing. */
export const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/** The payload is not covered. */
export const unsignedPayload = "UNSIGNED-PAYLOAD";

/** A target in its parts, every name and value in its one spelling. */
export interface ReadTarget {
  /** As it came. */
  readonly path: string;
  readonly parameters: readonly Parameter[];
}

/** A name and value of a query, percent-encoded. */
export type Parameter = readonly [name: string, value: string];

const plain = /^[A-Za-z0-9\-._~]*$/;

/**
 * The text with unreserved characters as they are and every other byte as %HH; undefined where a percent sign stands for
 * nothing.
 */
export function encodedOnce(text: string): string | undefined {
  if (plain.test(text)) return text;
  let isBroken = false;
  const encoded = text.replace(
    /%([0-9A-Fa-f]{2})?|[^A-Za-z0-9\-._~%]/g,
    (found, hex: string | undefined) => {
      if (hex !== undefined) {
        const byte = String.fromCharCode(Number.parseInt(hex, 16));
        return plain.test(byte) ? byte : `%${hex.toUpperCase()}`;
      }
      if (found === "%") isBroken = true;
      return encodeByte(found);
    },
  );
  return isBroken ? undefined : encoded;
}

/** The text, which is encoded already, encoded once more; and one that is not encoded, encoded. */
export function encodedAgain(text: string): string {
  return plain.test(text) ? text : text.replace(/[^A-Za-z0-9\-._~]/g, encodeByte);
}

function encodeByte(character: string): string {
  return `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`;
}

/**
 * The parts of a target; a text says why it has no one reading.
 *
 * Servers differ on whether a plus sign in a query is a space, and would then compute another signature.
 */
export function readTarget(target: string): ReadTarget | string {
  if (!target.startsWith("/")) return "its target is not a path";
  const mark = target.indexOf("?");
  const path = mark === -1 ? target : target.slice(0, mark);
  if (encodedPath(path) === undefined) return "its path has a percent sign that stands for nothing";
  const parameters: Parameter[] = [];
  for (const pair of mark === -1 ? [] : target.slice(mark + 1).split("&")) {
    if (pair === "") continue;
    if (pair.includes("+"))
      return "its query has a plus sign: write %20 for a space and %2B for a plus";
    const equals = pair.indexOf("=");
    const name = encodedOnce(equals === -1 ? pair : pair.slice(0, equals));
    const value = equals === -1 ? "" : encodedOnce(pair.slice(equals + 1));
    if (name === undefined || value === undefined)
      return "its query has a percent sign that stands for nothing";
    parameters.push([name, value]);
  }
  return { path, parameters };
}

/** The path with each segment in its one spelling; undefined where it has none. */
export function encodedPath(path: string): string | undefined {
  const segments = path.split("/").map(encodedOnce);
  return segments.includes(undefined) ? undefined : segments.join("/");
}

/** S3 takes a path as it is and encodes it once: its keys may hold empty and dot segments. */
export function isObjectStore(service: string): boolean {
  return service === "s3" || service.startsWith("s3-") || service === "s3express";
}

/** The canonical URI of a path that was sent. */
export function canonicalPath(path: string, service: string): string {
  return isObjectStore(service) ? (encodedPath(path) ?? path) : encodedSegments(normalised(path));
}

/** Each segment of an encoded path encoded once more. */
export function encodedSegments(path: string): string {
  return path.split("/").map(encodedAgain).join("/");
}

/** Without empty and dot segments; the slash at the end stays. */
function normalised(path: string): string {
  if (!/\/\/|\/\./.test(path)) return path;
  const kept: string[] = [];
  for (const segment of path.split("/")) {
    if (segment === "..") kept.pop();
    else if (segment !== "" && segment !== ".") kept.push(segment);
  }
  const isFolder = /\/\.{0,2}$/.test(path) && kept.length > 0;
  return `/${kept.join("/")}${isFolder ? "/" : ""}`;
}

/** Sorted by name, then by value. */
export function canonicalQuery(parameters: readonly Parameter[]): string {
  return [...parameters]
    .sort(([a, x], [b, y]) => compare(a, b) || compare(x, y))
    .map(([name, value]) => `${name}=${value}`)
    .join("&");
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

/** What a canonical request is made of. */
export interface CanonicalParts {
  readonly method: string;
  /** The canonical URI. */
  readonly path: string;
  readonly parameters: readonly Parameter[];
  readonly headers: HeaderList;
  /** Lower-case names in order. */
  readonly signed: readonly string[];
  readonly payload: string;
}

/** The text whose hash is signed. */
export function canonicalRequest(parts: CanonicalParts): string {
  const { method, path, parameters, headers, signed, payload } = parts;
  const fields = signed.map((name) => `${name}:${canonicalValue(headers.getAll(name))}\n`);
  return [
    method,
    path,
    canonicalQuery(parameters),
    fields.join(""),
    signed.join(";"),
    payload,
  ].join("\n");
}

function canonicalValue(values: readonly string[]): string {
  return values.map((value) => value.trim().replace(/[ \t]+/g, " ")).join(",");
}
