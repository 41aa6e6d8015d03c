/** What is found in the whole text, also below codings in each other, is found in a stream, however it is cut, and no byte of it is settled before. */
import { deflateSync, gzipSync } from "node:zlib";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { detectorNames } from "../../src/dlp/detectors.ts";
import { OwnSecrets } from "../../src/dlp/own-secrets.ts";
import { Scanner } from "../../src/dlp/scanner.ts";
import { StreamScanner } from "../../src/dlp/stream-scanner.ts";
import { Secret } from "../../src/secret.ts";
import { positives, Seeded } from "../support/dlp-corpus.ts";

const value = "Zk7-Qw_93rTbXv5LmN8pYd2Hs6Fg";
const own = new OwnSecrets();
own.add(new Secret(value));
const scanner = new Scanner({ own, maxDepth: 5, maxDecodedBytes: 2 ** 25 });
const wanted = new Set<string>(detectorNames);
const dice = new Seeded(11);
const planted = [
  value,
  ...Object.values(positives).flatMap((makers) => makers.map((make) => make(dice))),
];

const latin1 = (text: string): Buffer => Buffer.from(text, "latin1");

const codings: readonly ((text: string) => string)[] = [
  (text) => text,
  (text) => latin1(text).toString("base64"),
  (text) => latin1(text).toString("base64").replaceAll(/.{76}/g, "$&\r\n"),
  (text) => JSON.stringify(latin1(text).toString("base64").replaceAll(/.{76}/g, "$&\n")),
  (text) => latin1(text).toString("hex"),
  (text) => gzipSync(latin1(text)).toString("base64url"),
  (text) => gzipSync(latin1(text)).toString("latin1"),
  (text) => deflateSync(latin1(text)).toString("hex"),
  (text) => encodeURIComponent(text),
  (text) => encodeURIComponent(latin1(text).toString("base64")),
  (text) => text.replaceAll(/[a-z]/g, (one) => `\\u00${one.charCodeAt(0).toString(16)}`),
];

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz !.,;:";

/** Words, of which some are random: what cannot be packed makes long streams. */
const filler = fc
  .tuple(fc.nat(60_000), fc.nat(1_000_000), fc.constantFrom("prose", "digits", "random"))
  .map(([length, seed, kind]) => {
    if (kind === "prose") return "Call the tool, then answer; ".repeat(length / 28);
    let text = "";
    for (let state = seed + 1; text.length < length;) {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      text +=
        kind === "digits"
          ? `${state.toString(36)} `
          : (alphabet[(state >>> 9) % alphabet.length] ?? "");
    }
    return kind === "random" ? Buffer.from(text).toString("base64") : text;
  });

/** A planted value below so many codings in each other. */
const below = (...counts: readonly number[]): fc.Arbitrary<string> =>
  fc
    .tuple(
      filler,
      fc.constantFrom(...planted),
      filler,
      fc.array(fc.constantFrom(...codings), {
        minLength: Math.min(...counts),
        maxLength: Math.max(...counts),
      }),
    )
    .map(([before, secret, after, coded]) =>
      coded.reduce((text, one) => one(text), `${before} ${secret} ${after}`),
    );

/** A key without its end, below escapes, is as long as what can be seen of it. */
const names = (all: readonly { readonly detector: string; readonly hash: string }[]): string[] =>
  [
    ...new Set(
      all.map(({ detector, hash }) =>
        detector === "private_keys" ? detector : `${detector} ${hash}`,
      ),
    ),
  ].toSorted();

const kinds = (all: readonly { readonly detector: string }[]): string[] =>
  [...new Set(all.map(({ detector }) => detector))].toSorted();

function inPieces(text: Buffer, sizes: readonly number[]) {
  const stream = new StreamScanner(scanner, wanted, "exact");
  const found = [];
  let settled = 0;
  for (let [at, turn] = [0, 0]; at < text.length; turn += 1) {
    const end = Math.min(text.length, at + (sizes[turn % sizes.length] ?? 1));
    const scan = stream.push(text.subarray(at, end), end === text.length);
    for (const one of scan.findings) {
      found.push(one);
      if (!one.isSpread) expect(one.start).toBeGreaterThanOrEqual(settled);
    }
    expect(stream.settled).toBeGreaterThanOrEqual(settled);
    settled = stream.settled;
    at = end;
  }
  expect(settled).toBe(text.length);
  return found;
}

const sizes = fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 4 });
const runs = {
  seed: Number(process.env["PROPERTY_SEED"] ?? 1),
  interruptAfterTimeLimit: 10_000,
  numRuns: 200,
};

function compared(parts: readonly string[], pieces: readonly number[]) {
  const text = latin1(parts.join("\n"));
  const few = pieces.map((size) => Math.max(size, text.length >> 9, 1));
  return { whole: scanner.scan(text, wanted), streamed: inPieces(text, few) };
}

test("a stream shows what the whole shows, below one coding", () => {
  fc.assert(
    fc.property(fc.array(below(1), { minLength: 1, maxLength: 3 }), sizes, (parts, pieces) => {
      const { whole, streamed } = compared(parts, pieces);
      expect(names(streamed)).toEqual(expect.arrayContaining(names(whole.findings)));
      // The whole tells of one finding where several of a kind may lie at one place.
      expect(kinds(streamed)).toEqual(kinds(whole.findings));
    }),
    runs,
  );
});

test("a stream shows what the whole shows, below codings in each other", () => {
  fc.assert(
    fc.property(fc.array(below(2, 4), { minLength: 1, maxLength: 2 }), sizes, (parts, pieces) => {
      const { whole, streamed } = compared(parts, pieces);
      expect(names(streamed)).toEqual(expect.arrayContaining(names(whole.findings)));
    }),
    runs,
  );
});
