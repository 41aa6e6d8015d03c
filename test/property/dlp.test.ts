/** The scanner of dlp: what it finds does not depend on the cut, and its work is bounded by the length. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { gzipSync } from "node:zlib";
import { detectorNames } from "../../src/dlp/detectors.ts";
import { OwnSecrets } from "../../src/dlp/own-secrets.ts";
import { Scanner } from "../../src/dlp/scanner.ts";
import { StreamScanner, windowBytes } from "../../src/dlp/stream-scanner.ts";
import { Secret } from "../../src/secret.ts";
import { benignRequests } from "../support/dlp-corpus.ts";
import { spellings } from "../support/secret-spellings.ts";

const limits = { interruptAfterTimeLimit: 2_000, numRuns: 1_000 };
const value = "Zk7-Qw_93rTbXv5LmN8pYd2Hs6Fg";
const own = new OwnSecrets();
own.add(new Secret(value));
const maxDecodedBytes = 2 ** 20;
const scanner = new Scanner({ own, maxDepth: 5, maxDecodedBytes });
const wanted = new Set<string>(detectorNames);
const onlyOwn = new Set(["own_secrets"]);
/** The longest coding that is found wherever it is cut; gzip has to be whole. */
const inPieces = Object.entries(spellings).filter(([name]) => !/gzip|deflate/.test(name));

/** Nothing of it is a secret, and all of it may stand beside one. */
const filler = fc
  .array(fc.constantFrom("word ", "a1B2", "\n", '"', "\\n", "%20", "/", "=", "eyJ", "sk-", "é"), {
    maxLength: 40,
  })
  .map((parts) => parts.join(""));

test("a secret is found in any coding, in any pieces", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...inPieces),
      filler,
      fc.array(fc.nat(3_000), { maxLength: 6 }),
      fc.nat(windowBytes * 2),
      ([, spell], around, cuts, before) => {
        const text = Buffer.from(
          `${"lorem ".repeat(before / 6)} ${around} ${spell(value)} ${around}`,
        );
        const stream = new StreamScanner(scanner, onlyOwn);
        const places = [
          ...new Set([0, ...cuts.map((cut) => Math.min(cut + before, text.length)), text.length]),
        ].toSorted((a, b) => a - b);
        const found = places
          .slice(1)
          .flatMap((end, index) => stream.push(text.subarray(places[index], end)).findings);
        expect(found.length).toBeGreaterThan(0);
      },
    ),
    limits,
  );
});

test("a run of base64 without an end is read at its alignment wherever it is cut", () => {
  fc.assert(
    fc.property(
      fc.nat(60_000),
      fc.nat(50),
      fc.integer({ min: 500, max: 9_000 }),
      (before, some, step) => {
        const clear = `${"0123456789".repeat(before / 10 + 1)}${"x".repeat(some)}${Buffer.from(value).toString("base64")}`;
        const text = Buffer.from(Buffer.from(clear).toString("base64"));
        const stream = new StreamScanner(scanner, onlyOwn);
        let found = 0;
        for (let at = 0; at < text.length; at += step)
          found += stream.push(text.subarray(at, at + step)).findings.length;
        expect(found).toBeGreaterThan(0);
      },
    ),
    { ...limits, numRuns: 100 },
  );
});

test("ordinary text has no finding, whatever it is made of", () => {
  fc.assert(
    fc.property(fc.array(filler, { maxLength: 8 }), (parts) => {
      expect(scanner.scan(Buffer.from(parts.join(" ")), wanted).findings).toEqual([]);
    }),
    limits,
  );
});

/** Texts that were made to be slow for somebody. */
const hostile: Readonly<Record<string, (length: number) => Buffer>> = {
  "one run of base64": (length) => Buffer.alloc(length, "QUFB"),
  "base64 in base64": (length) => {
    let text = "secret text ".repeat(length / 60);
    for (let depth = 0; depth < 4; depth += 1) text = Buffer.from(text).toString("base64");
    return Buffer.from(text).subarray(0, length);
  },
  "percent signs": (length) => Buffer.alloc(length, "%25"),
  backslashes: (length) => Buffer.alloc(length, "\\"),
  "beginnings of keys": (length) => Buffer.alloc(length, "sk-ghp_eyJ-----BEGIN "),
  "headers of gzip": (length) => Buffer.alloc(length, "\x1f\x8b\x08\x04", "latin1"),
  "a bomb": (length) => gzipSync(Buffer.alloc(length * 900)),
  "names of secrets": (length) => Buffer.alloc(length, "token=password="),
  digits: (length) => Buffer.alloc(length, "4111 "),
};

test.each(Object.entries(hostile))("%s: the work is bounded by the length", (_name, make) => {
  const work = [20_000, 40_000, 80_000].map((length) => {
    const bytes = make(length);
    const { steps } = scanner.scan(bytes, wanted);
    expect(steps).toBeLessThanOrEqual(bytes.length * 9 + maxDecodedBytes);
    return steps;
  });
  const [first = 0, second = 0, third = 0] = work;
  expect(third - second).toBeLessThanOrEqual(3 * (second - first) + maxDecodedBytes);
});

describe("behind the first line of a private key", () => {
  const first = "-----BEGIN RSA PRIVATE KEY-----";
  const found = (text: string): number =>
    scanner.scan(Buffer.from(first + text), new Set(["private_keys"])).findings.length;

  test.each(["\n", "\r\n", " "])("headers may stand, with %j behind each", (end) => {
    const headers = [
      "",
      "Proc-Type: 4,ENCRYPTED",
      "DEK-Info: AES-128-CBC,0AF1",
      "",
      "MIIE".repeat(12),
    ];
    expect(found(headers.join(end))).toBe(1);
    expect(found(headers.with(4, "MIIE").join(end))).toBe(0);
  });

  test("what is none is read in one way, and not in as many as there are spaces", () => {
    const begun = performance.now();
    expect(found(`\n${"a:  ".repeat(30)}`)).toBe(0);
    expect(performance.now() - begun).toBeLessThan(1_000);
  });
});

test("500 requests of agents hold no secret of ours", () => {
  for (const { body, path } of benignRequests(500, 9))
    for (const bytes of [body, Buffer.from(path)]) {
      const { findings, isCut } = scanner.scan(bytes, wanted);
      expect([findings.filter(({ detector }) => detector === "own_secrets"), isCut]).toEqual([
        [],
        false,
      ]);
    }
});
