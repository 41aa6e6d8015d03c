/** Where in the arguments of a call a value stands: `url`, `options.headers`, `requests.url`, `/requests/0/url`. */
import { foldedName } from "../../http/json-access.ts";

/** A parsed address. */
export interface ArgumentPath {
  /** As the operator wrote it. */
  readonly source: string;
  readonly segments: readonly string[];
}

/** One value that an address leads to. */
export type Selected =
  | { readonly kind: "value"; readonly value: unknown }
  | { readonly kind: "missing" }
  /** A member differs from the one asked for by case only: a server may take it for that. */
  | { readonly kind: "ambiguous" };

const maxSegments = 32;
const maxSelected = 10_000;

/** Parses an address; throws an Error that says what is wrong with it. */
export function parseArgumentPath(source: string): ArgumentPath {
  const isPointer = source.startsWith("/");
  const segments = isPointer
    ? source
        .slice(1)
        .split("/")
        .map((part) => unescapePointer(part, source))
    : source.split(".");
  if (segments.length > maxSegments)
    throw new Error(`"${source}" has more than ${maxSegments} parts`);
  if (!isPointer && segments.some((part) => part === "")) {
    throw new Error(
      `"${source}" has an empty part; a name with a dot is addressed by a JSON pointer`,
    );
  }
  return { source, segments };
}

/** RFC 6901 section 4. */
function unescapePointer(part: string, source: string): string {
  if (/~(?![01])/.test(part)) throw new Error(`"${source}" has a ~ that is neither ~0 nor ~1`);
  return part.replaceAll("~1", "/").replaceAll("~0", "~");
}

/**
 * Every value at the address. A number is a position of an array; for any other name an array on the way is searched item
 * by item, and an item that lacks the value counts as missing; so does an array without items. `*` stands for every item or
 * member.
 */
export function selectArguments(args: unknown, path: ArgumentPath): readonly Selected[] {
  let places: Selected[] = [{ kind: "value", value: args }];
  for (const segment of path.segments) {
    const next: Selected[] = [];
    for (const place of places) {
      if (place.kind === "value") step(place.value, segment, next);
      else next.push(place);
      if (next.length > maxSelected) return [{ kind: "ambiguous" }];
    }
    places = next;
  }
  return places;
}

function step(value: unknown, segment: string, found: Selected[]): void {
  if (Array.isArray(value)) {
    stepArray(value, segment, found);
    return;
  }
  if (typeof value !== "object" || value === null) {
    found.push({ kind: "missing" });
    return;
  }
  if (Object.hasOwn(value, segment)) {
    found.push({ kind: "value", value: (value as Readonly<Record<string, unknown>>)[segment] });
    return;
  }
  const members = Object.entries(value);
  if (segment === "*" && members.length > 0) {
    for (const [, member] of members) found.push({ kind: "value", value: member });
    return;
  }
  const folded = foldedName(segment);
  const isNear = members.some(([key]) => foldedName(key) === folded);
  found.push({ kind: isNear ? "ambiguous" : "missing" });
}

function stepArray(items: readonly unknown[], segment: string, found: Selected[]): void {
  if (/^(?:0|[1-9][0-9]*)$/.test(segment)) {
    const at = Number(segment);
    found.push(at < items.length ? { kind: "value", value: items[at] } : { kind: "missing" });
    return;
  }
  if (items.length === 0) found.push({ kind: "missing" });
  for (const item of items) {
    if (found.length > maxSelected) return;
    if (segment === "*") found.push({ kind: "value", value: item });
    else step(item, segment, found);
  }
}
