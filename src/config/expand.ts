/**
 * Environment variables in the raw text of the file, by the rules of Go's os.Expand.
 *
 * `$NAME` and `${NAME}` are replaced before YAML is parsed. There is no escape and no default syntax. A name
 * that is not set is left as `${NAME}`, also where the file says `$NAME`; the loader refuses it outside comments.
 */

/** The variables that are looked up. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** One place where the text was changed: offsets in the source and in the expanded text. */
interface Replacement {
  readonly sourceStart: number;
  readonly sourceEnd: number;
  readonly start: number;
  readonly end: number;
}

/** A reference that could not be replaced. */
export interface Unexpanded {
  /** Undefined for text such as "${}" that names nothing and was taken out. */
  readonly name: string | undefined;
  readonly start: number;
}

/** Expanded text that still knows where each character came from. */
export interface Expansion {
  readonly text: string;
  readonly unexpanded: readonly Unexpanded[];
  /** Offset in the source of an offset in the expanded text. */
  sourceOffset(offset: number): number;
}

interface Reference {
  readonly name: string;
  /** Characters after the dollar sign that belong to the reference. */
  readonly width: number;
}

const isNameCharacter = /^[A-Za-z0-9_]$/;
/** Go reads each of these as a whole name of its own. */
const isSpecialName = /^[*#$@!?\-0-9]$/;

/** Replaces every reference in `source` by its value. */
export function expand(source: string, environment: Environment): Expansion {
  const pieces: string[] = [];
  const replacements: Replacement[] = [];
  const unexpanded: Unexpanded[] = [];
  let copied = 0;
  let length = 0;
  const copyUpTo = (end: number): void => {
    pieces.push(source.slice(copied, end));
    length += end - copied;
    copied = end;
  };
  for (let at = source.indexOf("$"); at !== -1; at = source.indexOf("$", copied)) {
    // A dollar sign at the very end names nothing and stays.
    if (at + 1 >= source.length) break;
    const { name, width } = readReference(source, at + 1);
    if (name === "" && width === 0) {
      copyUpTo(at + 1);
      continue;
    }
    copyUpTo(at);
    const value = lookUp(name, environment);
    if (value === undefined) unexpanded.push({ name: name || undefined, start: length });
    const text = value ?? (name === "" ? "" : `\${${name}}`);
    const sourceEnd = at + 1 + width;
    replacements.push({ sourceStart: at, sourceEnd, start: length, end: length + text.length });
    pieces.push(text);
    length += text.length;
    copied = sourceEnd;
  }
  copyUpTo(source.length);
  return {
    text: pieces.join(""),
    unexpanded,
    sourceOffset: (offset) => toSource(replacements, offset),
  };
}

function lookUp(name: string, environment: Environment): string | undefined {
  return name !== "" && Object.hasOwn(environment, name) ? environment[name] : undefined;
}

/** Reads what follows a dollar sign. An empty name with a width is malformed and is taken out of the text. */
function readReference(source: string, start: number): Reference {
  const first = source.charAt(start);
  if (first === "{") return readBraced(source, start);
  if (isSpecialName.test(first)) return { name: first, width: 1 };
  let end = start;
  while (end < source.length && isNameCharacter.test(source.charAt(end))) end++;
  return { name: source.slice(start, end), width: end - start };
}

function readBraced(source: string, start: number): Reference {
  const close = source.indexOf("}", start + 1);
  if (close === -1) return { name: "", width: 1 };
  return { name: source.slice(start + 1, close), width: close - start + 1 };
}

function toSource(replacements: readonly Replacement[], offset: number): number {
  let low = 0;
  let high = replacements.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const candidate = replacements[middle];
    if (candidate !== undefined && candidate.start <= offset) low = middle + 1;
    else high = middle;
  }
  const last = replacements[low - 1];
  if (last === undefined) return offset;
  return offset < last.end ? last.sourceStart : last.sourceEnd + (offset - last.end);
}
