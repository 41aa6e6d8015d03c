/** A page in parts: what its reader sees, and what only a model sees. One pass; nothing is looked for twice. */
import { resolveReferences } from "../parsers/character-references.ts";
import { HiddenClasses, isHiddenBy } from "./hidden-style.ts";

/** Something in a page that no reader sees. */
export interface HiddenPart {
  readonly kind: "element" | "comment" | "attribute" | "script";
  readonly text: string;
  /** Where it stands in the page: the whole element, comment or value. */
  readonly start: number;
  readonly end: number;
}

/** The address of an image. */
export interface ImageAddress {
  readonly url: string;
  readonly start: number;
  readonly end: number;
}

/** A page as {@link readPage} finds it. */
export interface Page {
  /** What is seen, with marks for code, lists, quotations and cells. */
  readonly visible: string;
  readonly hidden: readonly HiddenPart[];
  /** Addresses of images, and where they stand. */
  readonly images: readonly ImageAddress[];
  /** Places of visible text, for those who write into it. */
  readonly texts: readonly (readonly [start: number, end: number])[];
  readonly steps: number;
}

const voids: ReadonlySet<string> = new Set(
  "area base br col embed hr img input link meta source track wbr".split(" "),
);
const raw: ReadonlySet<string> = new Set(["script", "style", "textarea", "title", "noscript"]);
const marks: Readonly<Record<string, string>> = {
  code: "`",
  kbd: "`",
  samp: "`",
  q: '"',
  pre: "\n```\n",
  blockquote: "\n> ",
  li: "\n- ",
  td: "\n| ",
  th: "\n| ",
  dt: "\n- ",
  dd: "\n- ",
};
const inline: ReadonlySet<string> = new Set(
  "a abbr b bdi bdo cite data del dfn em font i ins label mark s small span strong sub sup time u var wbr".split(
    " ",
  ),
);
/** Attributes that hold words. */
const wordy =
  /^(?:alt|title|srcdoc|aria-(?:label|description|roledescription|placeholder|valuetext)|placeholder|content|summary|label|value|data-.{1,64})$/;
/** What an address, or a style, brings along by itself. */
const carrying = /(?:^|\burl\()\s{0,8}["']?\s{0,8}data:(?:[,;]|text\/|application\/|image\/svg)/i;
const leastAttributeChars = 12;
const maxDepth = 512;
/** Hidden parts that have a place of their own: what is hidden behind them is one part for each kind, which stays where it is. */
const maxParts = 20_000;
/** Whether a text has tags that a reader of pages would read. */
export function hasTags(text: string): boolean {
  return /<(?:!--|\/?[a-z][a-z0-9]{0,15}[\s>/])/i.test(text);
}

/** Reads the page. */
export function readPage(html: string): Page {
  return new PageParts(html).read();
}

interface Open {
  readonly name: string;
  readonly start: number;
  readonly isHidden: boolean;
}

interface Attribute {
  readonly name: string;
  readonly value: string;
  readonly start: number;
  readonly end: number;
}

class PageParts {
  readonly #html: string;
  readonly #visible: string[] = [];
  readonly #hidden: HiddenPart[] = [];
  readonly #unplaced = new Map<HiddenPart["kind"], string[]>();
  readonly #images: ImageAddress[] = [];
  readonly #texts: [number, number][] = [];
  readonly #stack: Open[] = [];
  readonly #classes = new HiddenClasses();
  /** What the outermost hidden element has said so far. */
  #unseen: string[] = [];
  #hiddenDepth = 0;
  #isLastTag = false;
  /** How many elements of a name are open. */
  readonly #opened = new Map<string, number>();
  #at = 0;
  #steps = 0;

  constructor(html: string) {
    this.#html = html;
  }

  read(): Page {
    const html = this.#html;
    this.#readStyles();
    while (this.#at < html.length) {
      const tag = html.indexOf("<", this.#at);
      const end = tag === -1 ? html.length : tag;
      this.#text(this.#at, end);
      this.#at = end;
      if (tag !== -1) this.#tag();
      this.#steps += 1;
    }
    while (this.#stack.length > 0) this.#pop(html.length);
    const end = html.length;
    for (const [kind, texts] of this.#unplaced)
      this.#hidden.push({ kind, text: texts.join("\n"), start: end, end });
    return {
      visible: this.#visible.join(""),
      hidden: this.#hidden,
      images: this.#images,
      texts: this.#texts,
      steps: this.#steps + html.length,
    };
  }

  /** A sheet may stand behind what it hides. */
  #readStyles(): void {
    const html = this.#html;
    const opening = /<style\b/gi;
    while (opening.exec(html) !== null) {
      const start = html.indexOf(">", opening.lastIndex);
      if (start === -1) return;
      const end = this.#rawEnd("style", start);
      this.#classes.read(html.slice(start + 1, end));
      opening.lastIndex = end;
    }
  }

  #text(start: number, end: number): void {
    if (start === end) return;
    const text = resolveReferences(this.#html.slice(start, end));
    if (this.#hiddenDepth > 0) this.#unseen.push(text);
    else {
      this.#visible.push(text);
      this.#texts.push([start, end]);
    }
  }

  #tag(): void {
    const html = this.#html;
    const start = this.#at;
    if (html.startsWith("<!--", start)) {
      const end = html.indexOf("-->", start + 4);
      this.#at = end === -1 ? html.length : end + 3;
      this.#hide("comment", html.slice(start + 4, end === -1 ? html.length : end), start, this.#at);
      return;
    }
    const next = html[start + 1] ?? "";
    if (next === "/") {
      const end = html.indexOf(">", start);
      this.#at = end === -1 ? html.length : end + 1;
      this.#close(nameAt(html, start + 2), start);
      return;
    }
    if (!/[a-z]/i.test(next)) {
      // A declaration or an instruction says nothing; a bare sign is text.
      const end = next === "!" || next === "?" ? this.#endOfTag(start) : -1;
      if (end === -1) this.#text(start, start + 1);
      this.#at = end === -1 ? start + 1 : end + 1;
      return;
    }
    this.#open(start);
  }

  /** Where the next tag ends; that there is none is found once. */
  #endOfTag(at: number): number {
    if (this.#isLastTag) return -1;
    const end = this.#html.indexOf(">", at);
    this.#isLastTag = end === -1;
    return end;
  }

  #open(start: number): void {
    const name = nameAt(this.#html, start + 1);
    const { attributes, end } = readAttributes(this.#html, start + 1 + name.length);
    this.#at = end;
    this.#steps += attributes.length;
    const isHidden = isHiddenBy(name, attributes, this.#classes);
    for (const attribute of attributes) this.#attribute(name, attribute);
    if (raw.has(name)) {
      this.#rawText(name, start);
      return;
    }
    if (this.#hiddenDepth === 0 && !isHidden) this.#mark(name);
    if (voids.has(name) || this.#html[end - 2] === "/" || this.#stack.length >= maxDepth) return;
    this.#stack.push({ name, start, isHidden });
    this.#opened.set(name, (this.#opened.get(name) ?? 0) + 1);
    if (isHidden) this.#hiddenDepth += 1;
  }

  #mark(name: string): void {
    const mark = marks[name];
    if (mark !== undefined) this.#visible.push(mark);
    else if (!inline.has(name)) this.#visible.push("\n");
  }

  #attribute(name: string, { name: attribute, value, start, end }: Attribute): void {
    if (attribute === "src" && (name === "img" || name === "iframe")) {
      this.#images.push({ url: resolveReferences(value), start, end });
    }
    if (value.length < leastAttributeChars) return;
    if (!wordy.test(attribute) && !carrying.test(value)) return;
    this.#hide("attribute", resolveReferences(value), start, end);
  }

  /** Elements whose content is no markup. */
  #rawText(name: string, start: number): void {
    const html = this.#html;
    const end = this.#rawEnd(name, this.#at);
    const text = html.slice(this.#at, end);
    if (name === "title" || name === "textarea") this.#text(this.#at, end);
    else this.#hide("script", text, start, end);
    const close = html.indexOf(">", end);
    this.#at = close === -1 ? html.length : close + 1;
  }

  /** Where the content of such an element ends that begins before `at`. */
  #rawEnd(name: string, at: number): number {
    const closing = new RegExp(`</${name}`, "gi");
    closing.lastIndex = at;
    return closing.exec(this.#html)?.index ?? this.#html.length;
  }

  #close(name: string, at: number): void {
    this.#steps += 1;
    if ((this.#opened.get(name) ?? 0) === 0) return;
    const found = this.#stack.findLastIndex((open) => open.name === name);
    while (this.#stack.length > found) this.#pop(at);
    if (this.#hiddenDepth > 0) return;
    const mark = marks[name];
    if (mark === "`" || mark === '"' || mark?.includes("```") === true) this.#visible.push(mark);
    else if (!inline.has(name)) this.#visible.push("\n");
  }

  #pop(end: number): void {
    const open = this.#stack.pop();
    if (open === undefined) return;
    this.#opened.set(open.name, (this.#opened.get(open.name) ?? 1) - 1);
    if (!open.isHidden) return;
    this.#hiddenDepth -= 1;
    if (this.#hiddenDepth > 0) return;
    const text = this.#unseen.join("");
    this.#unseen = [];
    this.#hide("element", text, open.start, closedAt(this.#html, end));
  }

  #hide(kind: HiddenPart["kind"], text: string, start: number, end: number): void {
    if (!/\S/.test(text)) return;
    if (this.#hidden.length < maxParts) this.#hidden.push({ kind, text, start, end });
    else {
      const others = this.#unplaced.get(kind);
      if (others === undefined) this.#unplaced.set(kind, [text]);
      else others.push(text);
    }
  }
}

/** Behind the tag that closes an element. */
function closedAt(html: string, at: number): number {
  if (!html.startsWith("</", at)) return at;
  const end = html.indexOf(">", at);
  return end === -1 ? html.length : end + 1;
}

function nameAt(html: string, at: number): string {
  return (/^[a-z][a-z0-9:-]{0,31}/i.exec(html.slice(at, at + 32))?.[0] ?? "").toLowerCase();
}

/** Of more, only those that could hold words, or a style: an element is then seen, and judged as that. */
const maxAttributes = 64;

/** The attributes of a tag, and where the tag ends. */
function readAttributes(
  html: string,
  from: number,
): { readonly attributes: readonly Attribute[]; readonly end: number } {
  const attributes: Attribute[] = [];
  const name = /[\s/]*([^\s=>/"']{1,64})?/y;
  const equals = /\s*=\s*/y;
  let at = from;
  while (at < html.length && html[at] !== ">") {
    name.lastIndex = at;
    const found = name.exec(html);
    const said = found?.[1];
    at += found?.[0].length ?? 0;
    if (said === undefined) {
      if (at < html.length && html[at] !== ">") at += 1;
      continue;
    }
    equals.lastIndex = at;
    const sign = equals.exec(html);
    const value = sign === null ? [at, at, at] : valueAt(html, at + sign[0].length);
    const [start = at, end = at, next = at] = value;
    at = next;
    if (attributes.length >= maxAttributes && end - start < leastAttributeChars) continue;
    attributes.push({ name: said.toLowerCase(), value: html.slice(start, end), start, end });
  }
  return { attributes, end: Math.min(html.length, at + 1) };
}

function valueAt(html: string, at: number): readonly number[] {
  const quote = html[at];
  if (quote === '"' || quote === "'") {
    const end = html.indexOf(quote, at + 1);
    const stop = end === -1 ? html.length : end;
    return [at + 1, stop, stop + 1];
  }
  const bare = /[^\s>]*/y;
  bare.lastIndex = at;
  const end = at + (bare.exec(html)?.[0].length ?? 0);
  return [at, end, end];
}
