/** A coding may begin behind digits that look like its own: what it holds is found at each alignment, whatever its length. */
import { expect, test } from "vitest";
import { checkDigits } from "../../../src/dlp/key-formats.ts";
import { OwnSecrets } from "../../../src/dlp/own-secrets.ts";
import { Scanner } from "../../../src/dlp/scanner.ts";
import { StreamScanner } from "../../../src/dlp/stream-scanner.ts";
import { Secret } from "../../../src/secret.ts";

const value = "Zk7-Qw_93rTbXv5LmN8pYd2Hs6Fg";
const random = "0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT";
const key = `ghp_${random}${checkDigits(random)}`;
const own = new OwnSecrets();
own.add(new Secret(value));
const scanner = new Scanner({ own, maxDepth: 5, maxDecodedBytes: 2 ** 25 });
const wanted = new Set(["own_secrets", "provider_keys"]);

const folds: readonly (readonly [string, (digits: string) => string])[] = [
  ["in one line", (digits) => digits],
  ["folded after 76", (digits) => digits.replaceAll(/.{76}/g, "$&\n")],
  ["folded after 77", (digits) => digits.replaceAll(/.{77}/g, "$&\r\n")],
  ["folded in JSON", (digits) => digits.replaceAll(/.{76}/g, String.raw`$&\n`)],
];
const codings = ["base64", "base64url", "hex"] as const;
const cases = codings.flatMap((coding) =>
  folds
    .filter(([name]) => coding !== "hex" || name === "in one line")
    .map((fold) => [coding, ...fold] as const),
);

test.each(cases)("%s, %s, behind up to 80 other digits", (coding, _name, fold) => {
  const missed: string[] = [];
  for (const around of [0, 100, 5_000, 50_000]) {
    const prose = "Hello there, ".repeat(around / 13);
    const digits = fold(Buffer.from(`${prose}${value} and ${key} ${prose}`).toString(coding));
    for (const before of [
      "",
      "a",
      "ab",
      "abc",
      "aB3".repeat(14),
      "aB3".repeat(26),
      `${"aB3".repeat(26)}a`,
    ]) {
      for (const between of ["", "\n", "/"]) {
        const text = Buffer.from(before === "" ? digits : before + between + digits);
        const seen = scanner.scan(text, wanted).findings.map(({ detector }) => detector);
        const stream = new StreamScanner(scanner, wanted, "exact");
        const streamed = stream.push(text, true).findings.map(({ detector }) => detector);
        for (const detector of wanted) {
          if (!seen.includes(detector)) missed.push(`${detector} ${around} ${before}`);
          if (!streamed.includes(detector)) missed.push(`stream: ${detector} ${around} ${before}`);
        }
      }
    }
  }
  expect(missed).toEqual([]);
});
