/**
 * Credentials that a request took along: servers repeat what they were sent in redirects, error pages and messages,
 * where the client would read it. Whatever of a response goes by here has the client's own stand-in in its place.
 */
import { Secret } from "../secret.ts";

/** One text that must not go by, and what goes by in its place. */
interface Pattern {
  readonly text: Secret;
  readonly first: number;
  readonly standIn: Buffer;
}

interface Found {
  readonly at: number;
  /** Absent where the bytes end before it is known whether it is one. */
  readonly end?: number;
  readonly standIn: Buffer;
}

const isCut = -2;
const isNone = -1;
const noBytes = Buffer.alloc(0);
const named: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&apos;",
};

/** How one character of visible ASCII is written in URLs, forms, JSON and HTML, the longest form first. */
const spellings: readonly (readonly Buffer[])[] = Array.from({ length: 0x7f }, (_, code) =>
  code < 0x20 ? [Buffer.of(code)] : spellingsOf(String.fromCharCode(code)),
);

function spellingsOf(character: string): Buffer[] {
  const code = character.charCodeAt(0);
  const hex = code.toString(16).padStart(2, "0");
  const inHex = [`%${hex}`, `%25${hex}`, `\\u00${hex}`, `&#x${hex};`];
  const all = [
    character,
    ...inHex,
    ...inHex.map((text) => text.replace(hex, hex.toUpperCase())),
    `&#${code};`,
    named[character] ?? character,
    '"\\/'.includes(character) ? `\\${character}` : character,
    character === " " ? "+" : character,
  ];
  return [...new Set(all)]
    .toSorted((a, b) => b.length - a.length)
    .map((text) => Buffer.from(text, "latin1"));
}

/** The credentials of one exchange. */
export class Echo {
  readonly #patterns: Pattern[] = [];
  /** Bytes that a pattern can begin with. */
  readonly #starts = new Uint8Array(256);
  readonly #onFound: (() => void)[] = [];
  #isFound = false;
  #isEverywhere = false;

  /** False where only responses with a status of 300 and more repeat what they were sent. */
  get isEverywhere(): boolean {
    return this.#isEverywhere;
  }

  /** `onFound` is called once, when something had to be replaced. */
  add(credential: string, standIn: string, onFound?: () => void, isEverywhere = true): void {
    if (credential === "" || credential === standIn) return;
    this.#isEverywhere ||= isEverywhere;
    const first = credential.charCodeAt(0);
    const pattern = {
      // Whoever looks for secrets knows it already.
      text: new Secret(credential, "caller"),
      first,
      standIn: Buffer.from(standIn, "latin1"),
    };
    // A longer text may hold a shorter one.
    const at = this.#patterns.findIndex(({ text }) => text.reveal().length < credential.length);
    this.#patterns.splice(at === -1 ? this.#patterns.length : at, 0, pattern);
    for (const spelling of spellings[first] ?? []) this.#starts[spelling[0] ?? 0] = 1;
    if (onFound !== undefined) this.#onFound.push(onFound);
  }

  /** The text without the credentials. */
  clean(text: string): string {
    const cleaned = this.stream(true).end(Buffer.from(text, "latin1"));
    return cleaned.toString("latin1");
  }

  /** The same for the values of a flat list of fields. */
  cleanFields(fields: readonly string[]): string[] {
    return fields.map((text, at) => (at % 2 === 0 ? text : this.clean(text)));
  }

  /** For bytes that come in pieces; without `isFlexible` as many go by as came, for those whose length was announced. */
  stream(isFlexible: boolean): EchoStream {
    return new EchoStream(this, isFlexible);
  }

  /** The first place of a credential from `from` on. */
  find(bytes: Buffer, from: number, isLast: boolean): Found | undefined {
    for (let at = from; at < bytes.length; at += 1) {
      if (this.#starts[bytes[at] ?? 0] === 0) continue;
      for (const { text, standIn } of this.#patterns) {
        const end = endOf(text.reveal(), bytes, at);
        if (end === isNone || (end === isCut && isLast)) continue;
        if (end === isCut) return { at, standIn };
        this.#tell();
        return { at, end, standIn };
      }
    }
    return undefined;
  }

  #tell(): void {
    if (this.#isFound) return;
    this.#isFound = true;
    for (const tell of this.#onFound) tell();
  }
}

/** Replaces what it finds; keeps back only the end of what could be the beginning of a credential. */
export class EchoStream {
  readonly #echo: Echo;
  readonly #isFlexible: boolean;
  #held = noBytes;

  constructor(echo: Echo, isFlexible: boolean) {
    this.#echo = echo;
    this.#isFlexible = isFlexible;
  }

  push(chunk: Buffer): Buffer {
    return this.#take(chunk, false);
  }

  end(chunk: Buffer = noBytes): Buffer {
    return this.#take(chunk, true);
  }

  #take(chunk: Buffer, isLast: boolean): Buffer {
    const bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    this.#held = noBytes;
    const parts: Buffer[] = [];
    let done = 0;
    for (;;) {
      const found = this.#echo.find(bytes, done, isLast);
      if (found === undefined) break;
      parts.push(bytes.subarray(done, found.at));
      done = found.end ?? bytes.length;
      if (found.end === undefined) {
        // A copy: the chunk is its reader's.
        this.#held = Buffer.from(bytes.subarray(found.at));
        break;
      }
      parts.push(this.#isFlexible ? found.standIn : filled(found.standIn, found.end - found.at));
    }
    if (done === 0) return bytes;
    parts.push(bytes.subarray(done));
    return Buffer.concat(parts);
  }
}

/** The text with asterisks behind it, or its beginning. */
function filled(text: Buffer, length: number): Buffer {
  return Buffer.concat([text.subarray(0, length), Buffer.alloc(length, 0x2a)], length);
}

/**
 * Where the credential ends that begins here, in whatever mixture of spellings; the longest reading, because `%25` is
 * one spelling of what `%` is the beginning of.
 */
function endOf(credential: string, bytes: Buffer, start: number): number {
  let ends = [start];
  let isOpen = false;
  for (let index = 0; index < credential.length; index += 1) {
    const options = spellings[credential.charCodeAt(index)] ?? [];
    const next: number[] = [];
    for (const from of ends) {
      for (const option of options) {
        const end = spelledAt(bytes, from, option);
        if (end === isCut) isOpen = true;
        else if (end !== isNone && !next.includes(end)) next.push(end);
      }
    }
    if (next.length === 0) return isOpen ? isCut : isNone;
    ends = next;
  }
  return Math.max(...ends);
}

function spelledAt(bytes: Buffer, at: number, option: Buffer): number {
  for (let index = 0; index < option.length; index += 1) {
    if (at + index >= bytes.length) return isCut;
    if (bytes[at + index] !== option[index]) return isNone;
  }
  return at + option.length;
}
