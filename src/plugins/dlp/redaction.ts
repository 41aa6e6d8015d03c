/** Replaces what was found, in the grammar of the text that holds it. */
import type { Finding } from "../../dlp/detectors.ts";
import type { Scanner } from "../../dlp/scanner.ts";
import { isObject } from "../../http/json-access.ts";
import { type JsonPath, type JsonReplacement, spliceJson } from "../../http/json-splice.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import { jsonOf } from "../../protocols/message-json.ts";
import type { Side } from "./host-plan.ts";

const maxViewDepth = 64;

/** The texts of one direction of one destination. */
export class Redaction {
  readonly #scanner: Scanner;
  readonly #side: Side;
  readonly #isAll: boolean;
  /** What somebody has approved. */
  readonly #approved: ReadonlySet<string>;

  /** `isAll`: for records, in which nothing stays that was found. */
  constructor(scanner: Scanner, side: Side, isAll = false, approved: readonly Finding[] = []) {
    this.#scanner = scanner;
    this.#side = side;
    this.#isAll = isAll;
    this.#approved = new Set(approved.map(({ hash }) => hash));
  }

  /** The body without what was found; undefined where that cannot be had. */
  body(bytes: Buffer, contentType: string | undefined): Buffer | undefined {
    const isForm = /^\s*application\/x-www-form-urlencoded\b/i.test(contentType ?? "");
    if (isForm) return this.#checked(Buffer.from(this.#parameters(bytes.toString("latin1"))));
    const json = jsonOf(bytes);
    if (json.kind !== "json") return this.#checked(this.#plain(bytes, 0));
    const found: JsonReplacement[] = [];
    this.#leaves(json.value, "", [], found);
    return this.#checked(Buffer.from(spliceJson(bytes.toString(), found)));
  }

  /** Path and query without what was found; undefined where that cannot be had. */
  target(target: string): string | undefined {
    const mark = target.indexOf("?");
    const path = mark === -1 ? target : target.slice(0, mark);
    const segments = path.split("/").map((segment) => this.#encoded(segment, ""));
    const query = mark === -1 ? "" : `?${this.#parameters(target.slice(mark + 1))}`;
    return this.#checked(Buffer.from(segments.join("/") + query, "latin1"))?.toString("latin1");
  }

  /** The value of a field; undefined where what was found is not in it alone. */
  field(name: string, value: string): string | undefined {
    const start = `${name}: `;
    const changed = this.#plain(Buffer.from(start + value, "latin1"), start.length);
    return this.#checked(changed)?.toString("latin1").slice(start.length);
  }

  /** What parsers left of the body, which records show: without what was found. */
  facts({ facts }: RequestContext): void {
    for (const [name, view] of facts)
      (facts as Map<string, unknown>).set(name, this.#view(view, "", 0));
  }

  #view(value: unknown, name: string, depth: number): unknown {
    if (typeof value === "string") return this.#text(value, name === "" ? "" : `${name}=`);
    if (depth >= maxViewDepth) return value;
    if (Array.isArray(value)) return value.map((item) => this.#view(item, name, depth + 1));
    if (!isObject(value) || Object.getPrototypeOf(value) !== Object.prototype) return value;
    const members = Object.entries(value);
    return Object.fromEntries(
      members.map(([key, item]) => [key, this.#view(item, key, depth + 1)]),
    );
  }

  #checked(bytes: Buffer): Buffer | undefined {
    const { findings, isCut } = this.#scanner.scan(bytes, this.#side.wanted);
    const isClean = findings.every(
      (one) =>
        !this.#isAll &&
        (this.#side.rulingOf(one)?.action === "observe" || this.#approved.has(one.hash)),
    );
    return isClean && !isCut ? bytes : undefined;
  }

  /** `name=value&…`, where only what holds a finding is written anew. */
  #parameters(text: string): string {
    const one = (parameter: string): string => {
      const equals = parameter.indexOf("=");
      if (equals === -1) return this.#encoded(parameter, "");
      const name = parameter.slice(0, equals);
      return `${name}=${this.#encoded(parameter.slice(equals + 1), `${name}=`)}`;
    };
    return text.split("&").map(one).join("&");
  }

  #encoded(text: string, before: string): string {
    let clear: string;
    try {
      clear = decodeURIComponent(text.replaceAll("+", " "));
    } catch {
      clear = text;
    }
    const changed = this.#text(clear, before);
    return changed === clear ? text : encodeURIComponent(changed);
  }

  #leaves(value: unknown, name: string, path: JsonPath, found: JsonReplacement[]): void {
    if (typeof value === "string" || typeof value === "number") {
      const text = String(value);
      const changed = this.#text(text, name === "" ? "" : `${name}=`);
      // A number that was one is a text now: JSON has no number with a hole.
      if (changed !== text) found.push({ path, json: JSON.stringify(changed) });
    } else if (Array.isArray(value)) {
      for (const [index, item] of value.entries())
        this.#leaves(item, name, [...path, index], found);
    } else if (typeof value === "object" && value !== null) {
      for (const [key, item] of Object.entries(value))
        this.#leaves(item, key, [...path, key], found);
    }
  }

  /** A text behind words that say what it is. */
  #text(text: string, before: string): string {
    if (text.length < 4) return text;
    const bytes = Buffer.from(before + text);
    const start = Buffer.byteLength(before);
    const changed = this.#plain(bytes, start);
    return changed === bytes ? text : changed.subarray(start).toString();
  }

  /** The same bytes where nothing is to be replaced behind `from`. */
  #plain(bytes: Buffer, from: number): Buffer {
    const { findings } = this.#scanner.scan(bytes, this.#side.wanted);
    const found = findings
      .filter((one) => one.end > from && this.#isReplaced(one))
      .toSorted((a, b) => a.start - b.start);
    if (found.length === 0) return bytes;
    const parts: Buffer[] = [];
    let done = 0;
    for (const one of found) {
      const start = Math.max(one.start, from, done);
      if (start >= one.end) continue;
      parts.push(bytes.subarray(done, start), maskOf(this.#side, one, one.end - start));
      done = one.end;
    }
    return Buffer.concat([...parts, bytes.subarray(done)]);
  }

  #isReplaced(finding: Finding): boolean {
    return this.#isAll || this.#side.rulingOf(finding)?.action === "redact";
  }
}

/** What stands in place of what was found. */
export function maskOf(side: Side, finding: Finding, length: number): Buffer {
  const ruling = side.rulingOf(finding);
  if (ruling?.mask === "same_length") return Buffer.alloc(length, "*");
  return Buffer.from(`[redacted:${finding.detector}]`);
}
