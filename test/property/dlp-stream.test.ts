/** What stands plainly or below one coding is found in a stream as in the whole text, however it is cut, and no byte of it is settled before. */
import { gzipSync } from "node:zlib";
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

const codings: readonly ((text: string) => string)[] = [
  (text) => text,
  (text) => Buffer.from(text).toString("base64"),
  (text) => Buffer.from(text).toString("base64").replaceAll(/.{76}/g, "$&\r\n"),
  (text) => JSON.stringify(Buffer.from(text).toString("base64").replaceAll(/.{76}/g, "$&\n")),
  (text) => Buffer.from(text).toString("hex"),
  (text) => gzipSync(text).toString("base64url"),
  (text) => gzipSync(text).toString("latin1"),
  (text) => encodeURIComponent(text),
  (text) => encodeURIComponent(Buffer.from(text).toString("base64")),
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

const part = fc
  .tuple(filler, fc.constantFrom(...planted), filler, fc.constantFrom(...codings))
  .map(([before, secret, after, coded]) => coded(`${before} ${secret} ${after}`));

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

test("a stream shows what the whole shows, below one coding", () => {
  fc.assert(
    fc.property(
      fc.array(part, { minLength: 1, maxLength: 3 }),
      fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 4 }),
      (parts, sizes) => {
        const text = Buffer.from(parts.join("\n"), "latin1");
        const few = sizes.map((size) => Math.max(size, text.length >> 9, 1));
        const [whole, streamed] = [scanner.scan(text, wanted).findings, inPieces(text, few)];
        expect(names(streamed)).toEqual(expect.arrayContaining(names(whole)));
        // The whole tells of one finding where several of a kind may lie at one place.
        expect(kinds(streamed)).toEqual(kinds(whole));
      },
    ),
    {
      seed: Number(process.env["PROPERTY_SEED"] ?? 1),
      interruptAfterTimeLimit: 10_000,
      numRuns: 200,
    },
  );
});
