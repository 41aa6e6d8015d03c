/** Numbers of cards, accounts and people: they begin where a word begins, and are checked by their own arithmetic. */
import type { DetectorName } from "./detectors.ts";
import { alphanumeric, digit, isBehind, isOf, upper, word } from "./byte-classes.ts";

/** What begins at a place. */
export interface Numbered {
  readonly detector: DetectorName;
  readonly kind: string;
  readonly end: number;
}

const space = 0x20;
const dash = 0x2d;
const dot = 0x2e;
const maxCardText = 24;

/** Issuers by the first digits of a number, and how long it is then. */
const issuers: readonly (readonly [string, RegExp, readonly number[]])[] = [
  ["visa", /^4/, [16]],
  ["mastercard", /^(?:5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)/, [16]],
  ["amex", /^3[47]/, [15]],
  ["discover", /^(?:6011|65|64[4-9])/, [16]],
  ["diners", /^3(?:0[0-5]|[68])/, [14]],
  ["jcb", /^35(?:2[89]|[3-8])/, [16]],
];

/** A card number that begins at `start`, with one kind of separator or none. */
export function cardAt(bytes: Buffer, start: number): Numbered | undefined {
  // A fraction has as many digits, and so has the rest of an address or a version.
  const isRest = bytes[start - 1] === dot || bytes[start - 1] === dash;
  if (isRest && isOf(bytes, start - 2, digit)) return undefined;
  const end = groupsEnd(bytes, start);
  if (end - start < 14) return undefined;
  const text = bytes.toString("latin1", start, end);
  const digits = text.replaceAll(/[ -]/g, "");
  if (digits.length < 14 || digits.length > 16 || isOf(bytes, end, alphanumeric)) return undefined;
  if (bytes[end] === dot && isOf(bytes, end + 1, digit)) return undefined;
  const issuer = issuers.find(
    ([, begins, lengths]) => lengths.includes(digits.length) && begins.test(digits),
  );
  if (issuer === undefined || !passesLuhn(digits)) return undefined;
  // Separated groups have the lengths that are printed on cards.
  const isPrinted =
    text === digits || /^\d{4}(?:(?:[ -]\d{4}){3}|[ -]\d{6}[ -]\d{4,5})$/.test(text);
  return isPrinted ? { detector: "cards", kind: issuer[0], end } : undefined;
}

/** The end of digits in groups with one kind of separator between. */
function groupsEnd(bytes: Buffer, start: number): number {
  let at = start;
  let separator = 0;
  while (at - start < maxCardText) {
    const byte = bytes[at] ?? 0;
    if (!isOf(bytes, at, digit)) {
      if ((byte !== space && byte !== dash) || !isOf(bytes, at + 1, digit)) break;
      if (at - start < 4 || (separator !== 0 && separator !== byte)) break;
      separator = byte;
    }
    at += 1;
  }
  return at;
}

/** ISO/IEC 7812-1, annex B. */
export function passesLuhn(digits: string): boolean {
  let sum = 0;
  for (let index = 0; index < digits.length; index += 1) {
    const value = digits.charCodeAt(digits.length - 1 - index) - 0x30;
    const twice = value * 2;
    sum += index % 2 === 0 ? value : twice > 9 ? twice - 9 : twice;
  }
  return sum % 10 === 0;
}

/** Lengths of account numbers by country (the registry of ISO 13616). */
const ibanLengths: ReadonlyMap<string, number> = new Map(
  (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 FO18 FR27 " +
    "GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 MC27 MD24 " +
    "ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 TN24 TR26 UA29 VA22 " +
    "VG24 XK20"
  )
    .split(" ")
    .map((entry) => [entry.slice(0, 2), Number(entry.slice(2))]),
);

/** An account number that begins at `start`, whole or in groups of four. */
export function ibanAt(bytes: Buffer, start: number): Numbered | undefined {
  if (!isOf(bytes, start + 1, upper) || !isOf(bytes, start + 2, digit)) return undefined;
  if (!isOf(bytes, start + 3, digit)) return undefined;
  const length = ibanLengths.get(bytes.toString("latin1", start, start + 2));
  if (length === undefined) return undefined;
  let text = "";
  let at = start;
  while (text.length < length) {
    if (isOf(bytes, at, upper | digit)) text += String.fromCharCode(bytes[at] ?? 0);
    else if (bytes[at] !== space || text.length % 4 !== 0 || !isOf(bytes, at + 1, upper | digit))
      return undefined;
    at += 1;
  }
  if (isOf(bytes, at, alphanumeric)) return undefined;
  return remainder97(text.slice(4) + text.slice(0, 4)) === 1
    ? { detector: "iban", kind: text.slice(0, 2), end: at }
    : undefined;
}

function remainder97(text: string): number {
  let rest = 0;
  for (const character of text) {
    const value = Number.parseInt(character, 36);
    rest = (rest * (value > 9 ? 100 : 10) + value) % 97;
  }
  return rest;
}

/** A social security number of the United States, with its dashes. */
export function ssnAt(bytes: Buffer, start: number): Numbered | undefined {
  if (bytes[start + 3] !== dash || bytes[start + 6] !== dash) return undefined;
  const before = bytes[start - 1];
  if (before === dash || before === dot || isBehind(bytes, start, word)) return undefined;
  const text = bytes.toString("latin1", start, start + 12);
  return /^(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])/.test(text)
    ? { detector: "us_ssn", kind: "us_ssn", end: start + 11 }
    : undefined;
}

/** A number in the form of E.164, in groups or not; `start` is its first digit, behind the plus. */
export function phoneAt(bytes: Buffer, start: number): Numbered | undefined {
  if (bytes[start - 1] !== 0x2b || isBehind(bytes, start - 1, alphanumeric)) return undefined;
  const text = bytes.toString("latin1", start, start + 24);
  const match = /^[1-9](?:[ ().-]{0,2}\d){8,14}(?!\w)/.exec(text);
  return match === null
    ? undefined
    : { detector: "phone", kind: "phone", end: start + match[0].length };
}

const maxLocal = 64;
const maxDomain = 255;

/** An address of mail around the sign at `at`. */
export function emailAround(
  bytes: Buffer,
  at: number,
): { readonly start: number; readonly end: number } | undefined {
  let start = at;
  while (at - start < maxLocal && isLocal(bytes, start - 1)) start -= 1;
  while (start < at && !isOf(bytes, start, alphanumeric)) start += 1;
  if (start === at) return undefined;
  const after = bytes.toString("latin1", at + 1, at + 1 + maxDomain);
  const [domain = ""] =
    /^(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])/.exec(after) ?? [];
  return domain === "" ? undefined : { start, end: at + 1 + domain.length };
}

function isLocal(bytes: Buffer, at: number): boolean {
  const byte = bytes[at];
  return isOf(bytes, at, word) || byte === dot || byte === 0x2b;
}
