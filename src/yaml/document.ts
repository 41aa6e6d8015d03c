/**
 * The file as YAML: its value, its syntax errors, and the place of every key.
 */
import {
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  visit,
  type Document,
  type ErrorCode,
  type Pair,
  type YAMLMap,
  type YAMLParseError,
} from "yaml";
import type { KeyPath, Position } from "./problem.ts";

/** The text that is parsed, where it is not the source itself: offsets in it lead back to the source. */
export interface ExpandedText {
  readonly text: string;
  sourceOffset(offset: number): number;
}

/** A syntax error and its place. */
export interface SyntaxProblem extends Position {
  readonly message: string;
}

/** Aliases that one document may resolve to; a file that repeats itself more is an attack or an accident. */
const maxAliases = 100;

/** A file with more mistakes than this is not YAML at all. */
const maxProblems = 200;

interface Parsed {
  readonly document: Document;
  readonly found: readonly { readonly offset: number; readonly message: string }[];
}

/** The library calls itself for each level: a text of nothing but levels is more than the stack has room for. */
function parsed(text: string): Parsed {
  try {
    const document = parseDocument(text, {
      merge: true,
      prettyErrors: false,
      stringKeys: true,
      // The check of the library compares each key with each: 20,000 keys took half a minute.
      uniqueKeys: false,
      version: "1.2",
    });
    const errors = document.errors.filter(isNoConsequence);
    return { document, found: [...errors.map(problemOf), ...structureProblems(document)] };
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    const found = [{ offset: 0, message: "is nested too deeply" }];
    return { document: parseDocument(""), found };
  }
}

/** A parsed file. Positions are those of the source, before expansion of variables. */
export class YamlDocument {
  readonly value: unknown;
  readonly problems: readonly SyntaxProblem[];
  readonly #document: Document;
  readonly #sourceOffset: ExpandedText["sourceOffset"];
  readonly #lines = new LineCounter();

  /** A byte order mark at the start is no part of the text. */
  constructor(file: string, expanded?: ExpandedText) {
    const source = file.replace(/^\uFEFF/, "");
    this.#sourceOffset = (offset) => expanded?.sourceOffset(offset) ?? offset;
    // Lines are counted in the source: a value with newlines must not move what follows it.
    this.#lines.addNewLine(0);
    for (let at = source.indexOf("\n"); at !== -1; at = source.indexOf("\n", at + 1)) {
      this.#lines.addNewLine(at + 1);
    }
    const { document, found } = parsed(expanded?.text ?? source);
    this.#document = document;
    const problems = found.map(({ offset, message }) => ({ ...this.positionOf(offset), message }));
    problems.sort((a, b) => a.line - b.line || a.column - b.column);
    let value: unknown;
    if (problems.length === 0) {
      try {
        value = document.toJS({ maxAliasCount: maxAliases });
      } catch (error) {
        // The text of the library may quote the file.
        const message =
          error instanceof ReferenceError
            ? "has too many aliases"
            : "has a merge key (<<) whose value is no mapping";
        problems.push({ line: 1, column: 1, message });
      }
    }
    this.value = value;
    this.problems = problems.slice(0, maxProblems).filter(isFirstOfItsKind);
  }

  /** The place of a key or list element; of the nearest one above it when the path leads nowhere. */
  locate(path: KeyPath): Position {
    let node: unknown = this.#document.contents;
    let offset = isNode(node) ? (node.range?.[0] ?? 0) : 0;
    for (const step of path) {
      const container = this.#resolve(node);
      const found = isMap(container) ? this.#member(container, step) : elementOf(container, step);
      if (found === undefined) break;
      offset = found.offset ?? offset;
      node = found.node;
    }
    return this.positionOf(offset);
  }

  /** The references that stand in a value or key, and not in a comment. */
  inScalars<Item extends { readonly start: number }>(items: readonly Item[]): (Item & Position)[] {
    if (items.length === 0) return [];
    const ranges: (readonly [number, number])[] = [];
    visit(this.#document, {
      Scalar: (_, node) => {
        if (node.range) ranges.push([node.range[0], node.range[1]]);
      },
    });
    return items
      .filter(({ start }) => ranges.some(([from, to]) => start >= from && start < to))
      .map((item) => ({ ...item, ...this.positionOf(item.start) }));
  }

  /** The place of an offset in the expanded text. */
  positionOf(offset: number): Position {
    const { line, col } = this.#lines.linePos(this.#sourceOffset(offset));
    return { line: Math.max(1, line), column: Math.max(1, col) };
  }

  #resolve(node: unknown): unknown {
    return isAlias(node) ? node.resolve(this.#document) : node;
  }

  #member(map: YAMLMap, step: string | number): Found | undefined {
    const own = map.items.find((pair) => keyOf(pair) === String(step));
    if (own !== undefined) return { offset: offsetOf(own.key), node: own.value };
    for (const pair of map.items) {
      if (keyOf(pair) !== "<<") continue;
      const merged = this.#resolve(pair.value);
      const sources = isSeq(merged) ? merged.items : [merged];
      for (const source of sources) {
        const resolved = this.#resolve(source);
        const found =
          isMap(resolved) && resolved !== map ? this.#member(resolved, step) : undefined;
        if (found) return found;
      }
    }
    return undefined;
  }
}

interface OffsetProblem {
  readonly offset: number;
  readonly message: string;
}

/** After a syntax error the parser finds every later character unexpected: one mistake is reported once. */
function isNoConsequence({ code }: YAMLParseError, index: number): boolean {
  return code !== "UNEXPECTED_TOKEN" || index === 0;
}

function problemOf({ code, pos }: YAMLParseError): OffsetProblem {
  return { offset: pos[0], message: syntaxMessages[code] ?? "is not valid YAML here" };
}

/** What the parser lets pass: keys that stand twice in a mapping, and aliases whose anchor does not come before. */
function structureProblems(document: Document): OffsetProblem[] {
  const anchors = new Set<string>();
  const problems: OffsetProblem[] = [];
  const report = (node: unknown, message: string): void => {
    problems.push({ offset: offsetOf(node) ?? 0, message });
  };
  visit(document, {
    Node: (_, node) => {
      if (isAlias(node)) {
        if (!anchors.has(node.source)) report(node, "is an alias without an anchor before it");
        return;
      }
      if (node.anchor !== undefined) anchors.add(node.anchor);
      if (isMap(node))
        for (const key of repeatedKeys(node)) report(key, "is a key that stands here twice");
    },
  });
  return problems;
}

function repeatedKeys(map: YAMLMap): unknown[] {
  const seen = new Set<string>();
  return map.items.flatMap((pair) => {
    const name = keyOf(pair);
    if (seen.has(name)) return [pair.key];
    seen.add(name);
    return [];
  });
}

/** One mistake makes the parser stumble several times at one place. */
function isFirstOfItsKind(
  problem: SyntaxProblem,
  index: number,
  all: readonly SyntaxProblem[],
): boolean {
  const first = all.findIndex(
    ({ line, column, message }) =>
      line === problem.line && column === problem.column && message === problem.message,
  );
  return first === index;
}

interface Found {
  readonly offset: number | undefined;
  readonly node: unknown;
}

function elementOf(container: unknown, step: string | number): Found | undefined {
  if (!isSeq(container) || typeof step !== "number") return undefined;
  const node: unknown = container.items[step];
  return node === undefined ? undefined : { offset: offsetOf(node), node };
}

function keyOf(pair: Pair): string {
  return isScalar(pair.key) ? String(pair.key.value) : "";
}

function offsetOf(node: unknown): number | undefined {
  return isNode(node) ? node.range?.[0] : undefined;
}

/** Our own words: those of the library may quote the text around the error, which may be a secret. */
const syntaxMessages: Partial<Record<ErrorCode, string>> = {
  ALIAS_PROPS: "gives a tag or an anchor to an alias",
  BAD_ALIAS: "has an alias without a name",
  BAD_DIRECTIVE: "has a malformed directive",
  BAD_DQ_ESCAPE: "has an unknown escape in a double-quoted text",
  BAD_INDENT: "is indented wrongly",
  BAD_SCALAR_START: "has a plain text that starts with a reserved character; put it in quotes",
  BLOCK_AS_IMPLICIT_KEY: "has a nested mapping where a simple value is expected",
  BLOCK_IN_FLOW: "has a block inside brackets",
  IMPOSSIBLE: "is not valid YAML here",
  KEY_OVER_1024_CHARS: "has a key of more than 1024 characters",
  MISSING_CHAR: "has a character missing here, such as a colon, a quote or a bracket",
  MULTILINE_IMPLICIT_KEY: "has a key of several lines, or a line without a colon",
  MULTIPLE_ANCHORS: "has two anchors on one value",
  MULTIPLE_DOCS: "has more than one document; only one is allowed",
  MULTIPLE_TAGS: "has two tags on one value",
  NON_STRING_KEY: "has a key that is not a text; put it in quotes",
  RESOURCE_EXHAUSTION: "is nested too deeply",
  TAB_AS_INDENT: "is indented with a tab; use spaces",
  TAG_RESOLVE_FAILED: "has a tag that is not known",
  UNEXPECTED_TOKEN: "has something unexpected here",
  BAD_COLLECTION_TYPE: "has a tag that does not fit its value",
};
