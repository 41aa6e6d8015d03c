/** Random text beside a name that says it is a secret: `"api_key": "…"`, `password=…`. */
import { isOf, word } from "./byte-classes.ts";

/** Words that such a name ends with. */
export const secretWords: readonly string[] = [
  "password",
  "passwd",
  "secret",
  "token",
  "api_key",
  "apikey",
  "api-key",
  "access_key",
  "accesskey",
  "access-key",
  "secret_key",
  "secretkey",
  "secret-key",
  "private_key",
  "privatekey",
  "auth_key",
  "credential",
];

/** Names that end so, and whose values are places in a list, or are shown to everybody. */
const openNames =
  /(?:page|sync|next|prev(?:ious)?|continuation|pagination|cursor|resume|cancel|progress|csrf|xsrf|change|delta|stop|eos|bos|pad|mask|sep|unk|cls|start|end|special|public|checksum|upload|client|watch|resumption)[_-]?token$/i;

/** What may stand between such a name and its value begins with one of these. */
const mayFollow = Array.from({ length: 256 }, (_none, byte) =>
  /[\\"'\s:=]/.test(String.fromCharCode(byte)),
);

const maxName = 64;
const maxValue = 512;
const leastValue = 16;

/** The value beside a name that ends before `end`. */
export function valueBeside(
  bytes: Buffer,
  end: number,
): { readonly start: number; readonly end: number } | undefined {
  if (!mayFollow[bytes[end] ?? 0]) return undefined;
  const after = bytes.toString("latin1", end, end + 16);
  const [between] = /^(?:\\?["'])?\s{0,3}(?::=|=>|[:=])\s{0,3}(?:\\?["'`])?/.exec(after) ?? [];
  if (between === undefined) return undefined;
  let start = end;
  while (start > 0 && end - start < maxName && isOf(bytes, start - 1, word)) start -= 1;
  if (openNames.test(bytes.toString("latin1", start, end))) return undefined;
  const from = end + between.length;
  const [text = ""] =
    /^[\w+/=.~!@#$^*-]{16,512}/.exec(bytes.toString("latin1", from, from + maxValue)) ?? [];
  return isRandom(text) ? { start: from, end: from + text.length } : undefined;
}

/** Bits a character that only random text has: words, versions, ids in the form of a UUID and stand-ins are below. */
export function isRandom(text: string): boolean {
  if (text.length < leastValue || !/\d/.test(text) || !/[A-Za-z]/.test(text)) return false;
  if (/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return false;
  if (/example|placeholder|changeme|your[_-]|xxxx|\.\.\.|^sha\d+-|^process\.env|^\$/i.test(text))
    return false;
  const least = /^[0-9a-f]+$/i.test(text) ? 3 : 3.5;
  return entropyOf(text) >= least;
}

/** Shannon's, in bits a character. */
export function entropyOf(text: string): number {
  const counts = new Map<string, number>();
  for (const character of text) counts.set(character, (counts.get(character) ?? 0) + 1);
  let bits = 0;
  for (const count of counts.values())
    bits -= (count / text.length) * Math.log2(count / text.length);
  return bits;
}
