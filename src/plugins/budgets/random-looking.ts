/**
 * How many bits a name or a target carries that look random: an estimate that is cheap, and near the truth for what is
 * made of words as well as for what is made of hex, base32 or base64.
 */

/** What follows a letter in words. Everything else follows it as often in random text. */
const usual: Readonly<Record<string, string>> = {
  a: "bcdgiklmnprstuxy",
  b: "aeilosuy",
  c: "aehiklortu",
  d: "adegiloprsy",
  e: "abcdefgilmnopqrstvwxy",
  f: "aefioru",
  g: "einoru",
  h: "aeiot",
  i: "abcdefglmnoprstv",
  j: "e",
  k: "eis",
  l: "adeilostuy",
  m: "abeiops",
  n: "acdefgiknoprstu",
  o: "abcdfgiklmnoprstuvw",
  p: "aeiloprst",
  q: "u",
  r: "acdegilmnoprstuvy",
  s: "acehiklopstuw",
  t: "acehilmoprstuy",
  u: "bdegilmnprst",
  v: "aei",
  w: "aeinor",
  x: "pt",
  y: "pst",
};

const letters = 26;
const isUsual = new Uint8Array(letters * letters);
for (const [first, others] of Object.entries(usual)) {
  for (const second of others) {
    isUsual[(first.charCodeAt(0) - 0x61) * letters + second.charCodeAt(0) - 0x61] = 1;
  }
}

/** Bits of one character, by what stands before it. */
const bits = {
  /** The first one of a word. */
  first: 3,
  /** A letter that words have there, and one that they have not. */
  usual: 1.5,
  unusual: 5,
  /** A digit behind a digit, and a change between letters and digits. */
  digit: 3.4,
  mixed: 5.2,
  /** A letter whose case is not that of the one before it. */
  caseChange: 1.5,
  hex: 4,
  /** What stands between words, and bytes that are no text of ASCII. */
  separator: 1,
  /** Another one than the one before it, from the third in a row on: no longer what words need between them. */
  punctuation: 4,
  other: 6,
};
/** Shorter ones with a digit may be a version or a number. */
const leastHex = 8;
/** Shorter words that come again are not looked for. */
const leastRepeated = 4;

/** Words of one text that are remembered; those after them count again. */
const maxSeen = 64;

/** Bits of a text. Escapes count as what they stand for, and a word that comes again in it as the choice among those there. */
export function randomLookingBits(text: string): number {
  const plain = text.includes("%") ? unescaped(text) : text;
  const { length } = plain;
  const seen: number[] = [];
  let sum = 0;
  let at = 0;
  let separators = 0;
  while (at < length) {
    const kind = kindOf(plain.charCodeAt(at));
    if (kind === separator) {
      separators += 1;
      const isData = separators > 2 && plain.charCodeAt(at) !== plain.charCodeAt(at - 1);
      sum += isData ? bits.punctuation : bits.separator;
      at += 1;
      continue;
    }
    separators = 0;
    if (kind === other) {
      sum += bits.other;
      at += 1;
      continue;
    }
    const begin = at;
    let word = bits.first;
    let hex = kind & hexKinds;
    let kinds = kind;
    let before = kind;
    for (at += 1; at < length; at += 1) {
      const next = kindOf(plain.charCodeAt(at));
      if (next === separator || next === other) break;
      hex &= next & hexKinds;
      kinds |= next;
      word += bitsOfPair(before, next);
      before = next;
    }
    if (at - begin >= leastRepeated && isKnown(plain, seen, begin, at)) {
      sum += Math.log2(seen.length / 2);
      continue;
    }
    const isHex = at - begin >= leastHex && hex !== 0 && (kinds & digit) !== 0;
    sum += !isHex ? word : (at - begin) * ((kinds & letter) === 0 ? bits.digit : bits.hex);
  }
  return Math.ceil(sum);
}

/** Whether the word stands earlier in the text; if not, it is remembered. */
function isKnown(text: string, seen: number[], begin: number, end: number): boolean {
  for (let at = 0; at < seen.length; at += 2) {
    const from = seen[at] ?? 0;
    if ((seen[at + 1] ?? 0) - from !== end - begin) continue;
    if (text.charCodeAt(from) !== text.charCodeAt(begin)) continue;
    if (text.startsWith(text.slice(from, from + end - begin), begin)) return true;
  }
  if (seen.length < 2 * maxSeen) seen.push(begin, end);
  return false;
}

/** Kinds of characters: below 32 the letter, and bits above. */
const digit = 32;
const letter = 64;
const upper = 128;
const lowerHex = 256;
const upperHex = 512;
const hexKinds = lowerHex | upperHex;
const separator = 1_024;
const other = 2_048;

const kinds = new Uint16Array(128).fill(separator);
for (let code = 0; code < 32; code += 1) kinds[code] = other;
kinds[127] = other;
for (let code = 0x30; code <= 0x39; code += 1) kinds[code] = digit | hexKinds;
for (let at = 0; at < letters; at += 1) {
  kinds[0x61 + at] = at | letter | (at < 6 ? lowerHex : 0);
  kinds[0x41 + at] = at | letter | upper | (at < 6 ? upperHex : 0);
}

function kindOf(code: number): number {
  return code < 128 ? (kinds[code] ?? other) : other;
}

function bitsOfPair(before: number, kind: number): number {
  if ((kind & digit) !== 0) return (before & digit) !== 0 ? bits.digit : bits.mixed;
  if ((before & digit) !== 0) return bits.mixed;
  const cased = ((before ^ kind) & upper) === 0 ? 0 : bits.caseChange;
  const isWord = isUsual[(before & 31) * letters + (kind & 31)] === 1;
  return cased + (isWord ? bits.usual : bits.unusual);
}

/** Bytes for escapes: what they are in UTF-8 does not matter. */
function unescaped(text: string): string {
  return text.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}
