/** Replaces values inside a JSON text and leaves every other byte as it came: numbers, spaces and the order of members. */
import { stringEnd } from "./strict-json.ts";

/** Names of members and places in arrays, from the outermost value inwards. */
export type JsonPath = readonly (string | number)[];

/** One value and the JSON text that takes its place. */
export interface JsonReplacement {
  readonly path: JsonPath;
  readonly json: string;
}

interface Place {
  json?: string;
  readonly inner: Map<string | number, Place>;
}

/** The text with these values replaced. It has to be valid JSON; a path that leads nowhere is passed over. */
export function spliceJson(text: string, replacements: readonly JsonReplacement[]): string {
  const root: Place = { inner: new Map() };
  for (const { path, json } of replacements) {
    let place = root;
    for (const step of path) {
      const next: Place = place.inner.get(step) ?? { inner: new Map() };
      place.inner.set(step, next);
      place = next;
    }
    place.json = json;
  }
  return new Splicer(text).run(root);
}

const quote = 0x22;

/** Walks only to where something is replaced; everything else is passed over. */
class Splicer {
  readonly #text: string;
  readonly #parts: string[] = [];
  #at = 0;
  /** Everything before is in the parts. */
  #done = 0;

  constructor(text: string) {
    this.#text = text;
  }

  run(root: Place): string {
    this.#value(root);
    this.#parts.push(this.#text.slice(this.#done));
    return this.#parts.join("");
  }

  /** At the beginning of a value, or at the space before it; behind it afterwards. */
  #value(place: Place | undefined): void {
    const code = this.#next();
    if (place?.json !== undefined) {
      this.#parts.push(this.#text.slice(this.#done, this.#at), place.json);
      this.#skip();
      this.#done = this.#at;
    } else if (place === undefined || (code !== 0x7b && code !== 0x5b)) {
      this.#skip();
    } else {
      this.#members(place, code === 0x7b);
    }
  }

  #members(place: Place, isObject: boolean): void {
    this.#at += 1;
    for (let index = 0; ; index += 1) {
      const code = this.#next();
      if (code === 0x7d || code === 0x5d || Number.isNaN(code)) break;
      if (code === 0x2c) this.#at += 1;
      this.#value(place.inner.get(isObject ? this.#name() : index));
    }
    this.#at += 1;
  }

  /** The name of a member; its colon is passed. */
  #name(): string {
    this.#next();
    const end = stringEnd(this.#text, this.#at);
    const raw = this.#text.slice(this.#at, end + 1);
    this.#at = end + 1;
    this.#next();
    this.#at += 1;
    return raw.includes("\\") ? String(JSON.parse(raw)) : raw.slice(1, -1);
  }

  /** Passes white space; the character that stands there. */
  #next(): number {
    let code = this.#text.charCodeAt(this.#at);
    while (code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09) {
      this.#at += 1;
      code = this.#text.charCodeAt(this.#at);
    }
    return code;
  }

  /** Passes one value without looking at what it is made of. */
  #skip(): void {
    const text = this.#text;
    let depth = 0;
    while (this.#at < text.length) {
      const code = text.charCodeAt(this.#at);
      if (code === quote) this.#at = stringEnd(text, this.#at);
      else if (code === 0x7b || code === 0x5b) depth += 1;
      else if (code === 0x7d || code === 0x5d) {
        if (depth === 0) return;
        depth -= 1;
      } else if (code === 0x2c && depth === 0) return;
      this.#at += 1;
      if (depth === 0 && (code === quote || code === 0x7d || code === 0x5d)) return;
    }
  }
}
