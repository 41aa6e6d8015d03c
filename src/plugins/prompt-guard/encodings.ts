/** Texts inside a text, in an encoding that models read: each is decoded once, to a depth, within the length of the whole. */
import { fromBase32 } from "../../base32.ts";
import { turnedText } from "./followed.ts";

/** Digits of base64 or base32. */
const digitsRun = /[A-Za-z0-9+/_-]{20,}={0,2}/g;
/** The same in lines, as mail and files of keys have it. */
const foldedRun =
  /(?<![A-Za-z0-9+/_-])(?:[A-Za-z0-9+/_-]{8,128}[ \t]{0,4}\r?\n[ \t]{0,8}){1,2000}[A-Za-z0-9+/_-]{2,128}={0,2}/g;
/** Words without a mark between them, which may be the same in groups. */
const groupedRun = /(?<!\S)(?:[A-Za-z0-9+/_-]{1,32} ){3,2000}[A-Za-z0-9+/_-]{1,32}={0,2}/g;
const hexRun = /(?:(?:\\x|0x|%)?[0-9a-f]{2}[ ,:]?(?:\r?\n[ \t]{0,8})?){16,4096}/gi;
/** Codes of letters, as `charCodeAt` gives them. */
const codesRun = /(?<!\d)(?:(?:3[2-9]|[4-9]\d|1[01]\d|12[0-6])[ ,;]{1,2}){12,4096}\d{2,3}/g;
const binaryRun = /(?:[01]{8}[ ,]?){6,512}/g;
/** References with at most a few plain characters between them. */
const escapeRun =
  /[a-z]{0,24}(?:(?:\\u[0-9a-f]{4}|\\u\{[0-9a-f]{1,6}\}|&#x?[0-9a-f]{1,7};|%[0-9a-f]{2}|\\x[0-9a-f]{2})[^%\\&]{0,12}){3,2000}/gi;
const escape =
  /\\u\{([0-9a-f]{1,6})\}|\\u([0-9a-f]{4})|\\x([0-9a-f]{2})|%([0-9a-f]{2})|&#x([0-9a-f]{1,6});|&#([0-9]{1,7});/gi;
/** Stems of instructions, each turned by thirteen letters. */
const turned =
  /vtaber|qvfertneq|sbetrg|birevqr|vafgehpgvba|flfgrz\s{1,3}cebzcg|cnffjbeq|perqragvny/i;
/** The same, from behind. */
const mirrored =
  /erongi|dragersid|tegrof|edirrevo|noitcurtsni|tpmorp\s{1,3}metsys|drowssap|laitnederc/i;
const leastChars = 12;

const hexText = (run: string): string | undefined => {
  const digits = run.replaceAll(/\\x|0x|[%\s,:]/gi, "");
  return readable(Buffer.from(digits.slice(0, digits.length & ~1), "hex"));
};

const bitsText = (run: string): string | undefined =>
  readable(Buffer.from((run.match(/[01]{8}/g) ?? []).map((bits) => Number.parseInt(bits, 2))));

const codesText = (run: string): string | undefined =>
  readable(
    Buffer.from(
      run
        .split(/[ ,;]+/)
        .map(Number)
        .filter((code) => code < 0x7f),
    ),
  );

/** What looks encoded, and what it says. */
const runs: readonly (readonly [RegExp, (run: string) => string | undefined])[] = [
  [digitsRun, digitsText],
  [foldedRun, (run) => digitsText(run.replaceAll(/\s+/g, ""))],
  [groupedRun, groupedText],
  [codesRun, codesText],
  [hexRun, hexText],
  [binaryRun, bitsText],
  [escapeRun, unescaped],
];

/**
 * The texts that stand encoded in this one; of each kind they are together no longer than it is, except for those that are
 * turned. Their number has no other limit: what stands behind many others would not be seen.
 */
export function* decodedTexts(text: string): Generator<string, void> {
  for (const [pattern, decode] of runs) {
    for (const [run] of text.matchAll(pattern)) {
      const found = decode(run);
      if (found !== undefined) yield found;
    }
  }
  if (turned.test(text)) yield turnedText(text);
  if (mirrored.test(text)) yield Array.from(text).reverse().join("");
}

/** A name in a program looks like base64 as well: only what decodes to a text is one. */
function digitsText(run: string): string | undefined {
  const isBase32 = /^(?:[A-Z2-7]+|[a-z2-7]+)=*$/.test(run);
  return (isBase32 ? readable(fromBase32(run)) : undefined) ?? readable(Buffer.from(run, "base64"));
}

/** What the longest row of words of one length says; words of that length may stand before it. */
function groupedText(run: string): string | undefined {
  const words = run.split(" ");
  let [start, end] = [0, 0];
  for (let from = 0, at = 1; at <= words.length; at += 1) {
    if (words[at]?.length === words[from]?.length) continue;
    if (at - from > end - start) [start, end] = [from, at];
    from = at;
  }
  const row = words.slice(start, end);
  const rest = words[end] ?? "";
  if (rest.length < (row[0]?.length ?? 0)) row.push(rest);
  for (let before = 0; before < 3 && row.length - before > 3; before += 1) {
    const text = digitsText(row.slice(before).join(""));
    if (text !== undefined) return text;
  }
  return undefined;
}

function readable(bytes: Buffer): string | undefined {
  if (bytes.length < leastChars) return undefined;
  const text = bytes.toString("utf8");
  if (text.includes("\uFFFD")) {
    // The run may have taken a letter too much at its end.
    const whole = text.replace(/\uFFFD{1,3}$/, "");
    if (whole.includes("\uFFFD")) return undefined;
  }
  // eslint-disable-next-line no-control-regex
  const control = text.match(/[\u0000-\u0008\u000e-\u001f\u007f]/g)?.length ?? 0;
  return control > 0 ? undefined : text;
}

function unescaped(text: string): string {
  return text.replaceAll(escape, (whole, ...groups: (string | undefined)[]) => {
    const at = groups.slice(0, 6).findIndex((group) => group !== undefined);
    const code = Number.parseInt(groups[at] ?? "", at === 5 ? 10 : 16);
    const isText = code > 0 && code <= 0x10_ffff && (code < 0xd800 || code > 0xdfff);
    return isText ? String.fromCodePoint(code) : whole;
  });
}
