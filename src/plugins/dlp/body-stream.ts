/** A request body that is too large to be held, looked through as it is streamed: nothing of it goes on before it is judged. */
import type { Scanner } from "../../dlp/scanner.ts";
import type { StreamFinding } from "../../dlp/piece.ts";
import { StreamScanner } from "../../dlp/stream-scanner.ts";
import { hasSignedBody } from "../../http/signed-fields.ts";
import type { BodyJudge, JudgedPart, RequestContext } from "../../pipeline/plugin.ts";
import type { Side } from "./host-plan.ts";
import { maskOf } from "./redaction.ts";
import type { Placed } from "./request-texts.ts";
import { demandOf, recorded, refusal, unread } from "./verdicts.ts";

/** What a stream needs of its plugin. */
export interface BodyStreamOptions {
  readonly scanner: Scanner;
  readonly side: Side;
  readonly context: RequestContext;
  readonly tooMuch: string;
  readonly count: (placed: readonly Placed[]) => void;
}

type Grammar = "json" | "form" | "text";

interface Replacement {
  readonly start: number;
  readonly end: number;
  readonly text: Buffer;
}

const maxName = 256;

/** Of JSON: whether a place is in a string, and there behind the backslash of an escape. */
type Inside = "nothing" | "string" | "escape";

function insideAfter(bytes: Buffer, before: Inside): Inside {
  let inside = before;
  // An iterator would take as long as the search for secrets.
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at];
    if (inside === "escape") inside = "string";
    else if (byte === 0x22) inside = inside === "string" ? "nothing" : "string";
    else if (byte === 0x5c && inside === "string") inside = "escape";
  }
  return inside;
}

/** One body. */
export class BodyStream implements BodyJudge {
  readonly keepsLength: boolean;
  readonly #options: BodyStreamOptions;
  readonly #stream: StreamScanner;
  readonly #grammar: Grammar;
  /** Bytes that are not let go, from {@link #passed} on. */
  #held: Buffer = Buffer.alloc(0);
  #passed = 0;
  /** What {@link #held} begins in. */
  #inside: Inside = "nothing";
  #replacements: Replacement[] = [];

  constructor(options: BodyStreamOptions) {
    const { scanner, side, context } = options;
    this.#options = options;
    this.keepsLength = !side.mayChangeLength;
    this.#stream = new StreamScanner(scanner, side.wanted, "exact");
    const type = context.headers.get("content-type") ?? "";
    if (/json/i.test(type)) this.#grammar = "json";
    else this.#grammar = /x-www-form-urlencoded/i.test(type) ? "form" : "text";
  }

  get keptBytes(): number {
    return this.#held.length + this.#stream.heldBytes;
  }

  push(piece: Buffer, isLast: boolean): JudgedPart {
    const { side, context, tooMuch, count } = this.#options;
    this.#held = this.#held.length === 0 ? piece : Buffer.concat([this.#held, piece]);
    const { findings, isCut } = this.#stream.push(piece, isLast);
    const placed = findings.map((finding): Placed => ({
      finding,
      part: "body",
      shown: "the body",
    }));
    count(placed);
    const demand = demandOf({ placed, isCut }, side);
    const refuse = (why?: string): JudgedPart => ({
      passed: [],
      decision: refusal("request", demand, placed, { context, why }),
    });
    if (demand.action === "refuse") return refuse();
    if (isCut && side.isEnforced)
      return { passed: [], decision: unread("request", context, tooMuch) };
    if (demand.action === "ask")
      return refuse("nobody is asked about a body that is larger than limits.max_body");
    const isSigned = hasSignedBody(context.headers, context.path);
    for (const one of findings) {
      if (side.rulingOf(one)?.action !== "redact") continue;
      const replacement = isSigned ? undefined : this.#replacementOf(one);
      if (replacement === undefined)
        return refuse(
          isSigned ? "its body is signed" : "it cannot be redacted where it is streamed",
        );
      this.#replacements.push(replacement);
    }
    const passed = this.#release();
    if (passed === undefined) return refuse("it cannot be redacted where it is streamed");
    if (demand.action === "none") return { passed };
    return {
      passed,
      decision: recorded(demand.action === "redact" ? "redacted" : "found", placed),
    };
  }

  /** What was found in the grammar of the body without it; undefined where that cannot be said. */
  #replacementOf(finding: StreamFinding): Replacement | undefined {
    const [start, end] = [finding.start - this.#passed, finding.end - this.#passed];
    if (finding.isSpread || start < 0) return undefined;
    const mask = maskOf(this.#options.side, finding, end - start);
    const at = { start: finding.start, end: finding.end };
    if (this.#grammar === "form") {
      const text = mask.includes("[") ? encodeURIComponent(mask.toString()) : mask.toString();
      return { ...at, text: Buffer.from(text) };
    }
    if (this.#grammar === "text") return { ...at, text: mask };
    const after = this.#held.toString("latin1", end, end + maxName);
    // The name of a member is what others look for.
    if (/^(?:[^"\\]|\\.)*"\s*:/.test(after)) return undefined;
    const before = this.#held.toString("latin1", Math.max(0, start - 64), start);
    const isNumber =
      /[[:,]\s*$/.test(before) &&
      /^\s*[\],}]/.test(after) &&
      insideAfter(this.#held.subarray(0, start), this.#inside) === "nothing";
    if (!isNumber) return { ...at, text: mask };
    // A number that was one is a text now.
    const inner = mask.includes("[") ? mask : mask.subarray(2);
    return { ...at, text: Buffer.from(`"${inner.toString()}"`) };
  }

  /** Lets go of what is judged; undefined where something is left of what was to be replaced. */
  #release(): readonly Buffer[] | undefined {
    let until = this.#stream.settled;
    for (const { start, end } of this.#replacements)
      if (start < until) until = Math.max(until, end);
    const due = this.#replacements
      .filter(({ start }) => start < until)
      .toSorted((a, b) => a.start - b.start);
    this.#replacements = this.#replacements.filter(({ start }) => start >= until);
    const parts: Buffer[] = [];
    let done = this.#passed;
    for (const { start, end, text } of due) {
      if (start < done) continue;
      parts.push(this.#held.subarray(done - this.#passed, start - this.#passed), text);
      done = end;
    }
    parts.push(this.#held.subarray(done - this.#passed, until - this.#passed));
    const gone = this.#held.subarray(0, until - this.#passed);
    if (this.#grammar === "json") this.#inside = insideAfter(gone, this.#inside);
    this.#held = this.#held.subarray(gone.length);
    this.#passed = until;
    const passed = parts.filter(({ length }) => length > 0);
    return due.length === 0 || this.#isClean(Buffer.concat(passed)) ? passed : undefined;
  }

  /** Findings may lie over each other, and one may have hidden another. */
  #isClean(bytes: Buffer): boolean {
    const { scanner, side } = this.#options;
    const { findings } = scanner.scan(bytes, side.wanted);
    return findings.every((one) => side.rulingOf(one)?.action === "observe");
  }
}
