/** Texts are looked at by steps: what is in them is found wherever it begins, whatever its length. */
import { expect, test } from "vitest";
import { keyFormats } from "../../../src/dlp/key-formats.ts";
import { secretWords } from "../../../src/dlp/named-secrets.ts";
import { OwnSecrets } from "../../../src/dlp/own-secrets.ts";
import { isWordAt } from "../../../src/dlp/pairs.ts";
import { listWords, Scanner } from "../../../src/dlp/scanner.ts";
import { wordPairs } from "../../../src/dlp/words.ts";
import { Secret } from "../../../src/secret.ts";
import { positives, Seeded } from "../../support/dlp-corpus.ts";

const limits = { maxDepth: 5, maxDecodedBytes: 2 ** 20 };
const places = Array.from({ length: 9 }, (_none, index) => index);

test.each(Object.entries(positives))("%s begins at any place", (name, makers) => {
  const scanner = new Scanner({ own: new OwnSecrets(), ...limits });
  const dice = new Seeded(5);
  for (const make of makers)
    for (const place of places) {
      const text = Buffer.from(`${" ".repeat(place)}${make(dice)} `);
      const { findings } = scanner.scan(text, new Set([name]));
      // A password may have no figure.
      if (name === "named_secrets") expect(findings.length).toBeLessThanOrEqual(1);
      else expect([place, findings.map(({ detector }) => detector)]).toEqual([place, [name]]);
    }
});

test.each(Array.from({ length: 16 }, (_none, index) => index + 8))(
  "a secret of %i bytes begins and ends at any place",
  (length) => {
    const value = "Zk7-Qw_93rTbXv5LmN8pYd2H".slice(0, length);
    const own = new OwnSecrets();
    own.add(new Secret(value));
    const scanner = new Scanner({ own, ...limits });
    for (const before of places)
      for (const behind of places) {
        const text = Buffer.from("ä".repeat(before) + value + "ä".repeat(behind));
        const [one] = scanner.scan(text, new Set(["own_secrets"])).findings;
        expect([one?.start, one?.end]).toEqual([before * 2, before * 2 + length]);
      }
  },
);

test("a line of a list of four bytes or more begins at any place", () => {
  for (const word of ["oryx", "oryxe", "oryxes", "oryxes7", "a longer line of a list"]) {
    const lists = listWords(new Map([["zoo", [Buffer.from(word)]]]));
    const scanner = new Scanner({ own: new OwnSecrets(), lists, ...limits });
    for (const place of places) {
      const text = Buffer.from(`${"x".repeat(place)}${word}`);
      expect(scanner.scan(text, new Set(["zoo"])).findings).toHaveLength(1);
    }
  }
});

test("each word has a pair at either parity, in each case that it may have", () => {
  const words = [...keyFormats.map(({ begins }) => begins), ...secretWords];
  for (const [index, word] of words.entries()) {
    const isName = index >= keyFormats.length;
    for (const text of isName ? [word, word.toUpperCase()] : [word])
      for (const place of [0, 1]) {
        const bytes = Buffer.from(`${" ".repeat(place)}${text} `);
        let seen = 0;
        for (let at = 0; at < bytes.length; at += 2) {
          const pair = (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8);
          for (const one of wordPairs.kinds[wordPairs.of[pair] ?? 0]?.words ?? [])
            if (one.word === index && isWordAt(bytes, at - one.offset, one.folded)) seen += 1;
        }
        expect([text, place, seen]).toEqual([text, place, 1]);
      }
  }
});
