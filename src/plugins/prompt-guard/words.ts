/** Words as rules compare them: what looks alike is alike, and a word knows whether it was written to be overlooked. */
import { invisibleInWord, withoutInvisible } from "./invisible.ts";

/** One word of a text. */
export interface Word {
  readonly text: string;
  readonly start: number;
  readonly end: number;
  /** It was spelled so that its letters are not what they look like. */
  readonly isDisguised: boolean;
}

const wordPattern =
  /[\u{34f}\u{fe00}-\u{fe0f}\u{e0100}-\u{e01ef}\u{ad}\u{180e}\u{200b}-\u{200f}\u{202a}-\u{202e}\u{2060}-\u{2069}\u{feff}\u{e0000}-\u{e007f}\p{L}\p{M}\p{N}_]{1,64}/gu;
/** Soft hyphens, and letters without a shape. */
const fillers = /[\u{ad}\u{115f}\u{1160}\u{17b4}\u{17b5}\u{3164}\u{ffa0}]+/gu;
/** No hyphenation breaks a word at every letter, and nothing Latin has letters without a shape. */
const spaced = /(?:[a-z]\u{ad}){3}|[a-z][\u{115f}\u{1160}\u{17b4}\u{17b5}\u{3164}\u{ffa0}]/iu;
const ascii = /^[\x20-\x7e]*$/;

/** Letters that look like those of the Latin alphabet. */
const lookalikes: ReadonlyMap<string, string> = new Map(
  [
    ["аеорсухіјѕԁһԛԝкмтвнпгӏ", "aeopcyxijsdhqwkmtbhnrl"],
    ["οανρτικυεηωχγσδ", "oavptikuenwxyod"],
    ["ոսօցհ", "nuogh"],
    ["ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢɡı", "abcdefghijklmnoprstuvwyzgi"],
  ].flatMap(([from = "", to = ""]) => Array.from(from).map((letter, at) => [letter, to[at] ?? ""])),
);
const foreign = /[\u{370}-\u{3ff}\u{400}-\u{52f}\u{530}-\u{58f}\u{1d00}-\u{1d2f}ʙɢʜɪʟɴʀʏɡꜰꜱ]/u;
const styled = /[\u{1d400}-\u{1d7ff}\u{ff21}-\u{ff5a}\u{24b6}-\u{24e9}\u{1f110}-\u{1f189}]/u;
const leet: Readonly<Record<string, string>> = {
  "0": "o",
  "1": "i",
  "3": "e",
  "4": "a",
  "5": "s",
  "7": "t",
};

/** The word without case, accents and points. */
export function canonicalWord(word: string): string {
  if (ascii.test(word)) return word.toLowerCase();
  return word
    .normalize("NFKD")
    .replaceAll(/\p{Mn}+/gu, "")
    .normalize("NFC")
    .toLowerCase();
}

/** How many words are made of several alphabets, and the words. */
export function* wordsOf(text: string): Generator<Word, void> {
  for (const found of text.matchAll(wordPattern)) {
    yield readWord(found[0], found.index);
  }
}

function readWord(raw: string, start: number): Word {
  const end = start + raw.length;
  if (ascii.test(raw)) {
    const text = raw.toLowerCase();
    // `1gn0re`: a number among letters stands for the letter that it looks like.
    const isLeet = /[a-z]/.test(text) && /[013457]/.test(text) && !/\d{3}/.test(text);
    if (!isLeet) return { text, start, end, isDisguised: false };
    const spelled = text.replaceAll(/[013457]/g, (digit) => leet[digit] ?? digit);
    return { text: spelled, start, end, isDisguised: true };
  }
  const visible = withoutInvisible(raw).replaceAll(fillers, "");
  const hasLatin = /[a-z]/i.test(visible);
  const isSplit = hasLatin && (invisibleInWord.test(raw) || spaced.test(raw));
  const isStyled = styled.test(visible);
  let text = canonicalWord(visible);
  const isMixed = foreign.test(text) && (hasLatin || /[\u{1d00}-\u{1d2f}]/u.test(text));
  if (isMixed)
    text = Array.from(text)
      .map((letter) => lookalikes.get(letter) ?? letter)
      .join("");
  return { text, start, end, isDisguised: isSplit || isStyled || isMixed };
}

/** Whether a word is made of Latin letters and of some that only look like them. */
export function isMixedWord(raw: string): boolean {
  if (raw.length < 4 || !/[a-z]{2}/i.test(raw)) return false;
  let alike = 0;
  for (const letter of raw.toLowerCase()) {
    if (!foreign.test(letter)) continue;
    if (!lookalikes.has(letter)) return false;
    alike += 1;
  }
  return alike > 0;
}
