/** Characters that nobody sees: what they spell, whether they are where a script needs them, and the text without them. */
import type { Findings } from "./findings.ts";

/** Characters inside a word of Latin letters that have no business there; a soft hyphen has. */
export const invisibleInWord =
  /[\u{34f}\u{fe00}-\u{fe0f}\u{e0100}-\u{e01ef}\u{180e}\u{200b}-\u{200d}\u{2060}-\u{2064}\u{feff}\u{e0000}-\u{e007f}]/u;

const tagRun = /[\u{e0000}-\u{e007f}]+/gu;
/** A flag of a region: a black flag, tags, and the tag that ends them. */
const flag = /\u{1f3f4}[\u{e0030}-\u{e0039}\u{e0061}-\u{e007a}]{1,7}\u{e007f}/gu;
const selectorRun = /[\u{fe00}-\u{fe0f}\u{e0100}-\u{e01ef}]{3,}/gu;
/** Those that say nothing in any script, in a row. */
const silentRun = /[\u{200b}-\u{200f}\u{2060}-\u{2064}\u{feff}\u{180e}]{6,}/gu;
const overrides = /[\u{202d}\u{202e}]/u;
const reversedRun = /\u{202e}([^\u{202c}\u{202e}\n]{1,2000})/gu;
const maxDecodedChars = 65_536;

/** Signals of the characters themselves, and the texts that they spell. */
export function inspectInvisible(text: string, findings: Findings): readonly string[] {
  const spelled: string[] = [];
  findings.steps += text.length;
  // Most texts have none of these.
  if (
    !/[\u{fe00}-\u{fe0f}\u{e0100}-\u{e01ef}\u{180e}\u{200b}-\u{200f}\u{202a}-\u{202e}\u{2060}-\u{2069}\u{feff}\u{e0000}-\u{e007f}]/u.test(
      text,
    )
  ) {
    return spelled;
  }
  inspectTags(text, findings, spelled);
  for (const [run] of text.matchAll(selectorRun)) {
    findings.add("variation_selectors", 60);
    spelled.push(selectorText(run));
  }
  let longest = 0;
  for (const [run] of text.matchAll(silentRun)) longest = Math.max(longest, run.length);
  if (longest >= 8) findings.add("zero_width", longest >= 16 ? 60 : 30);
  const split = countSplitWords(text);
  if (split >= 3) findings.add("zero_width", split >= 8 ? 40 : 20);
  if (overrides.test(text)) {
    const isRightToLeft = /[\p{Script=Hebrew}\p{Script=Arabic}]/u.test(text);
    findings.add("bidi", isRightToLeft ? 10 : 35);
    for (const [, run = ""] of text.matchAll(reversedRun))
      spelled.push(Array.from(run).reverse().join(""));
  }
  return bounded(spelled);
}

function inspectTags(text: string, findings: Findings, spelled: string[]): void {
  if (!/[\u{e0000}-\u{e007f}]/u.test(text)) return;
  let letters = 0;
  for (const [run] of text.replaceAll(flag, "").matchAll(tagRun)) {
    const said = Array.from(run)
      .map((tag) => (tag.codePointAt(0) ?? 0) - 0xe_0000)
      .map((code) => (code >= 0x20 && code < 0x7f ? String.fromCharCode(code) : ""))
      .join("");
    letters += said.length;
    spelled.push(said);
  }
  if (letters > 0) findings.add("unicode_tags", letters >= 4 ? 60 : 20);
}

/** A byte in each selector: 0 to 15, and 16 to 255. */
function selectorText(run: string): string {
  const bytes = Array.from(run).map((selector) => {
    const code = selector.codePointAt(0) ?? 0;
    return code < 0xff00 ? code - 0xfe00 : code - 0xe_0100 + 16;
  });
  return Buffer.from(bytes).toString("utf8");
}

/** Words of Latin letters that an invisible character tears apart. */
function countSplitWords(text: string): number {
  let count = 0;
  for (const _found of text.matchAll(
    /[a-z][\u{200b}-\u{200d}\u{2060}-\u{2064}\u{feff}]+(?=[a-z])/giu,
  )) {
    count += 1;
  }
  return count;
}

function bounded(texts: readonly string[]): readonly string[] {
  let left = maxDecodedChars;
  return texts.flatMap((text) => {
    if (text.length < 4 || left <= 0) return [];
    const part = text.slice(0, left);
    left -= part.length;
    return [part];
  });
}

/** Joiners that Indic scripts, Arabic and emoji need are kept, as are marks of direction beside right-to-left letters. */
const joined =
  /[\u{fe0f}\p{Script=Arabic}\p{Script=Devanagari}\p{Script=Bengali}\p{Script=Gurmukhi}\p{Script=Gujarati}\p{Script=Oriya}\p{Script=Tamil}\p{Script=Telugu}\p{Script=Kannada}\p{Script=Malayalam}\p{Script=Sinhala}\p{Script=Mongolian}\p{Script=Syriac}\p{Script=Khmer}\p{Script=Myanmar}\p{Script=Tibetan}\p{Extended_Pictographic}\p{Emoji_Modifier}]$/u;
const mayGo =
  /\u{1f3f4}[\u{e0030}-\u{e0039}\u{e0061}-\u{e007a}]{1,7}\u{e007f}|[\u{fe00}-\u{fe0f}\u{e0100}-\u{e01ef}]{2,}|[\u{34f}\u{180e}\u{200b}-\u{200d}\u{202a}-\u{202e}\u{2060}-\u{2069}\u{feff}\u{e0000}-\u{e007f}]/gu;

/** The text without characters that nobody sees; what a script or an emoji needs stays. */
export function withoutInvisible(text: string): string {
  if (text.search(mayGo) === -1) return text;
  const isRightToLeft = /[\p{Script=Hebrew}\p{Script=Arabic}]/u.test(text);
  return text.replaceAll(mayGo, (found, at: number) => {
    const code = found.codePointAt(0) ?? 0;
    if (code === 0x1_f3f4) return found;
    // One selector says which form of a character is meant; more say something else.
    if ((code >= 0xfe00 && code <= 0xfe0f) || code >= 0xe_0100) return "";
    const isIsolate = code >= 0x2066 && code <= 0x2069;
    if (isIsolate || (code >= 0x202a && code <= 0x202c)) return isRightToLeft ? found : "";
    if (code !== 0x200c && code !== 0x200d) return "";
    return joined.test(text.slice(Math.max(0, at - 2), at)) ? found : "";
  });
}
