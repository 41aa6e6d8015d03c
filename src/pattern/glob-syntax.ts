/** The grammar of the glob dialect: a pattern as nodes, or a reason why it cannot be read. */

/** A pattern that cannot be read; the message says why, in words for the author of the policy. */
export class GlobSyntaxError extends Error {
  override readonly name = "GlobSyntaxError";
}

/** One element of a pattern whose segments are separated by `/`. */
export type GlobNode =
  | { readonly kind: "literal"; readonly char: string }
  | { readonly kind: "any" | "star" }
  | { readonly kind: "recursive-prefix" | "recursive-suffix" | "recursive-middle" }
  | {
      readonly kind: "class";
      readonly negated: boolean;
      readonly ranges: readonly (readonly [number, number])[];
    }
  | { readonly kind: "alternatives"; readonly branches: readonly (readonly GlobNode[])[] };

/** Deeper nesting of braces is refused. */
const maxNesting = 16;

/** Reads a pattern; throws {@link GlobSyntaxError}. */
export function parseGlobNodes(
  pattern: string,
  options: { readonly literalBraces: boolean },
): readonly GlobNode[] {
  return new GlobParser(pattern, options.literalBraces).parse();
}

class GlobParser {
  readonly #chars: readonly string[];
  readonly #literal: boolean;
  #at = 0;
  #branch: GlobNode[] = [];
  readonly #open: { readonly outer: GlobNode[]; readonly branches: GlobNode[][] }[] = [];

  constructor(pattern: string, literal: boolean) {
    this.#chars = Array.from(pattern);
    this.#literal = literal;
  }

  parse(): readonly GlobNode[] {
    while (this.#at < this.#chars.length) {
      const char = this.#chars[this.#at] ?? "";
      this.#at += 1;
      this.#one(char);
    }
    if (this.#open.length > 0) throw new GlobSyntaxError("'{' without '}'");
    return this.#branch;
  }

  #one(char: string): void {
    if (char === "?") this.#branch.push({ kind: "any" });
    else if (char === "*") this.#star();
    else if (char === "[") this.#class();
    else if (this.#literal) this.#branch.push({ kind: "literal", char });
    else if (char === "{") this.#openBrace();
    else if (char === "}") this.#closeBrace();
    else if (char === "," && this.#open.length > 0) this.#nextBranch();
    else if (char === "\\") this.#escape();
    else this.#branch.push({ kind: "literal", char });
  }

  #openBrace(): void {
    if (this.#open.length >= maxNesting) {
      throw new GlobSyntaxError(`braces nest deeper than ${maxNesting}`);
    }
    this.#open.push({ outer: this.#branch, branches: [] });
    this.#branch = [];
  }

  #nextBranch(): void {
    this.#open.at(-1)?.branches.push(this.#branch);
    this.#branch = [];
  }

  #closeBrace(): void {
    const group = this.#open.pop();
    if (group === undefined) throw new GlobSyntaxError("'}' without '{'");
    group.branches.push(this.#branch);
    this.#branch = group.outer;
    this.#branch.push({ kind: "alternatives", branches: group.branches });
  }

  #escape(): void {
    const char = this.#chars[this.#at];
    if (char === undefined) throw new GlobSyntaxError("'\\' at the end escapes nothing");
    this.#at += 1;
    this.#branch.push({ kind: "literal", char });
  }

  /** `**` is special only as a whole segment; everywhere else it is two stars. */
  #star(): void {
    const before = this.#chars[this.#at - 2];
    if (this.#chars[this.#at] !== "*") {
      this.#branch.push({ kind: "star" });
      return;
    }
    this.#at += 1;
    const after = this.#chars[this.#at];
    if (this.#branch.length === 0) {
      if (after === undefined || after === "/") {
        if (after === "/") this.#at += 1;
        this.#branch.push({ kind: "recursive-prefix" });
      } else this.#branch.push({ kind: "star" }, { kind: "star" });
      return;
    }
    const closes = this.#open.length > 0 && (after === "," || after === "}");
    const isSuffix = after === undefined || closes;
    if (before !== "/" || (!isSuffix && after !== "/")) {
      this.#branch.push({ kind: "star" }, { kind: "star" });
      return;
    }
    if (!isSuffix) this.#at += 1;
    // The separator before `**` belongs to it; a second `**` adds nothing to a first one.
    const previous = this.#branch.pop();
    if (previous?.kind === "recursive-prefix" || previous?.kind === "recursive-suffix") {
      this.#branch.push(previous);
    } else this.#branch.push({ kind: isSuffix ? "recursive-suffix" : "recursive-middle" });
  }

  #class(): void {
    const negated = this.#chars[this.#at] === "!" || this.#chars[this.#at] === "^";
    if (negated) this.#at += 1;
    const ranges: [number, number][] = [];
    let isRange = false;
    for (let first = true; ; first = false) {
      const char = this.#chars[this.#at];
      if (char === undefined) throw new GlobSyntaxError("'[' without ']'");
      this.#at += 1;
      const code = char.codePointAt(0) ?? 0;
      const last = ranges.at(-1);
      if (char === "]" && !first) break;
      if (char === "-" && !first && !isRange) {
        isRange = true;
      } else if (isRange && last !== undefined) {
        if (code < last[0]) throw new GlobSyntaxError("range ends before it starts");
        last[1] = code;
        isRange = false;
      } else ranges.push([code, code]);
    }
    if (isRange) ranges.push([0x2d, 0x2d]);
    this.#branch.push({ kind: "class", negated, ranges });
  }
}
