/** Web pages: what a reader sees, with headings, lists and links. One pass over the text; nothing is looked for twice. */
import { resolveReferences } from "../parsers/character-references.ts";

/** Elements of which nothing is read. */
const unseen: ReadonlySet<string> = new Set([
  "script",
  "style",
  "svg",
  "noscript",
  "template",
  "iframe",
  "canvas",
]);
const blocks =
  /^(?:p|div|section|article|main|header|footer|nav|aside|ul|ol|table|tr|br|hr|pre|blockquote|form|dl|dt|dd|figure|title|body|html|head)$/;
const page =
  /^\s*(?:<!--[^>]{0,200}-->\s*)?<(?:!doctype\s+html|html|head|body|div|main|article|section|table|ul|p|h[1-6])\b/i;
const maxLinkChars = 200;
/** Whether a text is a page, or a part of one. */
export function isPage(text: string): boolean {
  return page.test(text.slice(0, 400));
}

/** The page as text. */
export function pageText(html: string): string {
  return new PageReader(html).read();
}

class PageReader {
  readonly #html: string;
  readonly #parts: string[] = [];
  #at = 0;
  #link = "";
  /** White space means something. */
  #isPlain = false;

  constructor(html: string) {
    this.#html = html;
  }

  read(): string {
    const html = this.#html;
    while (this.#at < html.length) {
      const tag = html.indexOf("<", this.#at);
      this.#text(html.slice(this.#at, tag === -1 ? html.length : tag));
      if (tag === -1) break;
      this.#at = tag;
      this.#tag();
    }
    return this.#parts
      .join("")
      .split("\n")
      .map((line) => line.trim())
      .join("\n")
      .replaceAll(/\n{3,}/g, "\n\n")
      .trim();
  }

  #text(raw: string): void {
    if (raw === "") return;
    const text = resolveReferences(raw);
    this.#parts.push(this.#isPlain ? text : text.replaceAll(/\s+/g, " "));
  }

  #tag(): void {
    const html = this.#html;
    if (html.startsWith("<!--", this.#at)) {
      this.#skipTo(html.indexOf("-->", this.#at + 4), 3);
      return;
    }
    const end = html.indexOf(">", this.#at);
    const tag = html.slice(this.#at + 1, end === -1 ? html.length : end);
    this.#skipTo(end, 1);
    const name = (/^\/?([a-z][a-z0-9]*)/i.exec(tag)?.[1] ?? "").toLowerCase();
    if (tag.startsWith("/")) this.#close(name);
    else this.#open(name, tag);
  }

  #open(name: string, tag: string): void {
    if (unseen.has(name)) {
      if (!tag.endsWith("/")) this.#skipElement(name);
    } else if (/^h[1-6]$/.test(name)) this.#parts.push(`\n\n${"#".repeat(Number(name[1]))} `);
    else if (name === "li") this.#parts.push("\n- ");
    else if (name === "td" || name === "th") this.#parts.push(" | ");
    else if (name === "a") {
      this.#link = /\bhref\s*=\s*["']?([^"'\s>]{1,2000})/i.exec(tag)?.[1] ?? "";
    } else if (name === "img") {
      const words = /\balt\s*=\s*"([^"]{1,200})"/i.exec(tag)?.[1];
      if (words !== undefined) this.#parts.push(`[${words}]`);
    } else if (blocks.test(name)) this.#parts.push("\n");
    if (name === "pre") this.#isPlain = true;
  }

  #close(name: string): void {
    if (name === "a") {
      const link = this.#link;
      this.#link = "";
      if (link !== "" && link.length <= maxLinkChars && !/^(?:#|javascript:)/i.test(link)) {
        this.#parts.push(` (${link})`);
      }
    } else if (blocks.test(name) || /^h[1-6]$/.test(name)) this.#parts.push("\n");
    if (name === "pre") this.#isPlain = false;
  }

  /** An element that is never closed takes the rest of the page, as in browsers. */
  #skipElement(name: string): void {
    const closing = new RegExp(`</${name}`, "gi");
    closing.lastIndex = this.#at;
    const found = closing.exec(this.#html);
    if (found === null) this.#at = this.#html.length;
    else this.#skipTo(this.#html.indexOf(">", found.index), 1);
  }

  #skipTo(found: number, length: number): void {
    this.#at = found === -1 ? this.#html.length : found + length;
  }
}
