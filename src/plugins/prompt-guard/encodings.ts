/** Texts inside a text, in an encoding that models read: each is decoded once, to a depth, within the length of the whole. */

const base64Run = /[A-Za-z0-9+/_-]{20,}={0,2}/g;
const hexRun = /(?:(?:\\x|0x|%)?[0-9a-f]{2}[ ,:]?){16,4096}/gi;
const binaryRun = /(?:[01]{8}[ ,]?){6,512}/g;
/** References with at most a few plain characters between them. */
const escapeRun =
  /(?:(?:\\u[0-9a-f]{4}|\\u\{[0-9a-f]{1,6}\}|&#x?[0-9a-f]{1,7};|%[0-9a-f]{2}|\\x[0-9a-f]{2})[^%\\&]{0,12}){3,2000}/gi;
const escape =
  /\\u\{([0-9a-f]{1,6})\}|\\u([0-9a-f]{4})|\\x([0-9a-f]{2})|%([0-9a-f]{2})|&#x([0-9a-f]{1,6});|&#([0-9]{1,7});/gi;
/** Stems of instructions, each turned by thirteen letters. */
const turned =
  /vtaber|qvfertneq|sbetrg|birevqr|vafgehpgvba|flfgrz\s{1,3}cebzcg|cnffjbeq|perqragvny/i;
/** The same, from behind. */
const mirrored =
  /erongi|dragersid|tegrof|edirrevo|noitcurtsni|tpmorp\s{1,3}metsys|drowssap|laitnederc/i;
const leastChars = 12;
const maxRuns = 500;

/** The texts that stand encoded in this one; together they are no longer than it is, except for those that are turned. */
export function* decodedTexts(text: string): Generator<string, void> {
  let left = maxRuns;
  for (const [run] of text.matchAll(base64Run)) {
    if ((left -= 1) < 0) return;
    const found = base64Text(run);
    if (found !== undefined) yield found;
  }
  for (const [run] of text.matchAll(hexRun)) {
    if ((left -= 1) < 0) return;
    const digits = run.replaceAll(/\\x|0x|[%\s,:]/gi, "");
    const found = readable(Buffer.from(digits.slice(0, digits.length & ~1), "hex"));
    if (found !== undefined) yield found;
  }
  for (const [run] of text.matchAll(binaryRun)) {
    if ((left -= 1) < 0) return;
    const bytes = (run.match(/[01]{8}/g) ?? []).map((bits) => Number.parseInt(bits, 2));
    const found = readable(Buffer.from(bytes));
    if (found !== undefined) yield found;
  }
  for (const [run] of text.matchAll(escapeRun)) {
    if ((left -= 1) < 0) return;
    yield unescaped(run);
  }
  if (turned.test(text)) yield text.replaceAll(/[a-z]/gi, turnedLetter);
  if (mirrored.test(text)) yield Array.from(text).reverse().join("");
}

/** A name in a program looks like base64 as well: only what decodes to a text is one. */
function base64Text(run: string): string | undefined {
  const bytes = Buffer.from(run, "base64");
  return readable(bytes);
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

function turnedLetter(letter: string): string {
  const code = letter.charCodeAt(0);
  const base = code >= 97 ? 97 : 65;
  return String.fromCharCode(((code - base + 13) % 26) + base);
}
