/** The estimate of what names and targets carry: near the truth for data, and low for what programs usually ask for. */
import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { randomLookingBits } from "../../../../src/plugins/budgets/random-looking.ts";

const size = 1_500;
const data = randomBytes(size);
const base32 = [...data].map((byte) => "abcdefghijklmnopqrstuvwxyz234567"[byte % 32]).join("");

const words = Array.from(
  { length: 64 },
  (_, at) => `word${"abcdefgh"[at >> 3]}${"abcdefgh"[at & 7]}`,
);

test.each([
  ["hex", data.toString("hex"), 8 * size],
  ["HEX", data.toString("hex").toUpperCase(), 8 * size],
  ["base64url", data.toString("base64url"), 8 * size],
  ["base32", base32, 5 * size],
  ["decimal", [...data].map((byte) => String(byte % 10)).join(""), Math.log2(10) * size],
  [
    "escaped bytes",
    [...data].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join(""),
    8 * size,
  ],
  ["escaped hex", encodeURIComponent(data.toString("hex")).replaceAll("a", "%61"), 8 * size],
  ["separators", [...data].map((byte) => "!$&'()*+,;=:@-._"[byte % 16]).join(""), 4 * size],
  [
    "the order of words that were there",
    [...words, ...[...data].map((byte) => words[byte % 64])].join("/"),
    6 * size,
  ],
  ["dotted hex", (data.toString("hex").match(/.{8}/g) ?? []).join("."), 8 * size],
])(
  "data in %s counts for more than half of what it is, and not for twice as much",
  (_, text, truth) => {
    const bits = randomLookingBits(text);
    expect(bits).toBeGreaterThan(truth / 2);
    expect(bits).toBeLessThan(truth * 2);
  },
);

test.each([
  ["www", 20],
  ["registry", 20],
  ["production-cloudflare-docker", 80],
  ["d111111abcdef8", 80],
  ["/lodash/-/lodash-4.17.21.tgz", 80],
  ["/repos/acme/site/issues?state=open&per_page=100&page=3", 120],
  ["/org/repo.git/info/refs?service=git-upload-pack", 120],
  ["/v1/chat/completions", 80],
])("%s is at most %d bits", (text, most) => {
  expect(randomLookingBits(text)).toBeLessThanOrEqual(most);
});

test("a word that comes again in a text counts once, a word like it does not", () => {
  const word = data.toString("hex", 0, 16);
  const once = randomLookingBits(word);
  expect(randomLookingBits(`${word}/${word}/${word}`)).toBe(once + 2);
  expect(randomLookingBits(`${word}/${word.slice(0, -1)}g`)).toBeGreaterThan(1.8 * once);
});

test("nothing is nothing, and what is no escape is read as it stands", () => {
  expect(randomLookingBits("")).toBe(0);
  expect(randomLookingBits("%zz%")).toBeGreaterThan(0);
});
