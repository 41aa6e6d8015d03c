/** The grammar of the glob dialect: a pattern as nodes, or a reason why it cannot be read. */
import { type GlobNode, oneBut } from "./automaton.ts";

/** A pattern that cannot be read; the message says why, in words for the author of the policy. */
export class GlobSyntaxError extends Error {
  override readonly name = "GlobSyntaxError";
}

/** Any run of whole segments: nothing, or any run that ends with a separator. */
const anyRun: GlobNode = { kind: "many", but: "" };
const anySegments: GlobNode = { kind: "either", branches: [[], [anyRun, "/"]] };

/** Deeper nesting of braces is refused. */
const maxNesting = 16;

/** Reads a pattern whose segments are separated by `/`; throws {@link GlobSyntaxError}. */
export function parseGlobNodes(pattern: string, selector: boolean): readonly GlobNode[] {
  return new GlobParser(pattern, selector).parse();
}

class GlobParser {
  readonly #chars: readonly string[];
  readonly #selector: boolean;
  /** The character at which `*` and `?` stop, if any. */
  readonly #barrier: string;
  #at = 0;
  #branch: GlobNode[] = [];
  readonly #open: { readonly outer: GlobNode[]; readonly branches: GlobNode[][] }[] = [];

  constructor(pattern: string, selector: boolean) {
    this.#chars = Array.from(pattern);
    this.#selector = selector;
    this.#barrier = selector ? "" : "/";
  }

  parse(): readonly GlobNode[] {
    while (this.#at < this.#chars.length) {
      const char = this.#chars[this.#at] ?? "";
      this.#at += 1;
      this.#one(char);
    }
    if (this.#open.length > 0) throw new GlobSyntaxError("'{' without '}'");
    const isAll = this.#branch.length === 1 && this.#branch[0] === anySegments;
    return isAll ? [anyRun] : this.#branch;
  }

  #one(char: string): void {
    if (char === "?") this.#branch.push(oneBut(this.#barrier));
    else if (char === "*") this.#star();
    else if (char === "[") this.#class();
    else if (this.#selector) this.#branch.push(char);
    else if (char === "{") this.#openBrace();
    else if (char === "}") this.#closeBrace();
    else if (char === "," && this.#open.length > 0) this.#nextBranch();
    else if (char === "\\") this.#escape();
    else this.#branch.push(char);
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
    // An empty alternative is dropped, as the dialect does: `{,a}` is `a`.
    const branches = group.branches.filter((branch) => branch.length > 0);
    this.#branch.push({ kind: "either", branches: branches.length > 0 ? branches : [[]] });
  }

  #escape(): void {
    const char = this.#chars[this.#at];
    if (char === undefined) throw new GlobSyntaxError("'\\' at the end escapes nothing");
    this.#at += 1;
    this.#branch.push(char);
  }

  /** `**` is special only as a whole segment; everywhere else it is a star. */
  #star(): void {
    const before = this.#chars[this.#at - 2];
    const isDouble = this.#chars[this.#at] === "*";
    if (isDouble) this.#at += 1;
    const after = this.#chars[this.#at];
    const isFirst = this.#branch.length === 0;
    const closes = !isFirst && this.#open.length > 0 && (after === "," || after === "}");
    const isSuffix = after === undefined || closes;
    if (!isDouble || (!isFirst && before !== "/") || (!isSuffix && after !== "/")) {
      this.#branch.push({ kind: "many", but: this.#barrier });
      return;
    }
    if (!isSuffix) this.#at += 1;
    // A second `**` adds nothing to a first one.
    const isSecond = this.#branch.at(-1) === anySegments;
    if (isSecond && this.#branch.length === 1) return;
    if (isSecond) this.#branch.pop();
    this.#branch.push(isSuffix && !isFirst ? anyRun : anySegments);
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
    this.#branch.push({ kind: "one", negated, ranges });
  }
}
