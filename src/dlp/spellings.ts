/** How a value looks in the codings that do not depend on what stands around it. */

import { toBase32 } from "../base32.ts";

/** The value as it is, reversed, in UTF-16, in base16, base32 and base64 at every alignment; what neighbours change is left out. */
export function spellingsOf(value: Buffer): readonly Buffer[] {
  const texts = [value.toString("hex"), value.toString("hex").toUpperCase()];
  for (const text of alignedBase64(value)) texts.push(text, urlSafe(text));
  for (const text of alignedBase32(value)) texts.push(text, text.toLowerCase());
  return [
    ...textSpellingsOf(value),
    Buffer.from(value).reverse(),
    Buffer.from(value.toString("utf8"), "utf16le"),
    ...[...new Set(texts)].map((text) => Buffer.from(text, "latin1")),
  ];
}

/** The value as it is, and as JSON has it: the scanner does not undo the escapes that nearly every text has. */
export function textSpellingsOf(value: Buffer): readonly Buffer[] {
  const json = JSON.stringify(value.toString("utf8")).slice(1, -1);
  return json.includes("\\") ? [value, Buffer.from(json)] : [value];
}

/** What {@link spellingsOf} gives, in the only case that a host name has. */
export function nameSpellingsOf(value: Buffer): readonly Buffer[] {
  const texts = [
    value.toString("latin1"),
    value.toString("hex"),
    ...alignedBase64(value).flatMap((text) => [text, urlSafe(text)]),
    ...alignedBase32(value),
  ];
  return [...new Set(texts.map((text) => text.toLowerCase()))].map((text) =>
    Buffer.from(text.replaceAll(".", ""), "latin1"),
  );
}

/** Only whole digits of the value: those at its ends also depend on the bytes beside it. */
function aligned(before: number, length: number, bitsPerDigit: number): [number, number] {
  const first = Math.ceil((before * 8) / bitsPerDigit);
  return [first, Math.floor(((before + length) * 8) / bitsPerDigit)];
}

function alignedBase64(value: Buffer): string[] {
  return [0, 1, 2].map((before) => {
    const text = Buffer.concat([Buffer.alloc(before), value]).toString("base64");
    return text.slice(...aligned(before, value.length, 6));
  });
}

function urlSafe(text: string): string {
  return text.replaceAll("+", "-").replaceAll("/", "_");
}

function alignedBase32(value: Buffer): string[] {
  return [0, 1, 2, 3, 4].map((before) => {
    const text = toBase32(Buffer.concat([Buffer.alloc(before), value]));
    return text.slice(...aligned(before, value.length, 5));
  });
}
