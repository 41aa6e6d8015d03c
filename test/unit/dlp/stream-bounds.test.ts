/** A stream holds no more back than it says, whatever is in it. */
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { detectorNames } from "../../../src/dlp/detectors.ts";
import { checkDigits } from "../../../src/dlp/key-formats.ts";
import { OwnSecrets } from "../../../src/dlp/own-secrets.ts";
import { Scanner } from "../../../src/dlp/scanner.ts";
import { StreamScanner } from "../../../src/dlp/stream-scanner.ts";
import { Secret } from "../../../src/secret.ts";

const value = "Zk7-Qw_93rTbXv5LmN8pYd2Hs6Fg";
const own = new OwnSecrets();
own.add(new Secret(value));
const scanner = new Scanner({ own, maxDepth: 5, maxDecodedBytes: 2 ** 25 });
const wanted = new Set<string>(detectorNames);
const pieceBytes = 65_536;
const mostHeld = 2 ** 20 + 2 * pieceBytes;

const escaped = (text: string): string =>
  text.replaceAll(/./g, (one) => `\\u00${one.charCodeAt(0).toString(16)}`);
const times = (count: number, one: (text: string) => string, text: string): string =>
  Array.from({ length: count }).reduce<string>((inner) => one(inner), text);

const hostile: Readonly<Record<string, string>> = {
  "escapes five times over": times(5, escaped, "x"),
  "hex five times over": times(5, (text) => Buffer.from(text).toString("hex"), "Call the tool; "),
  "the beginning of a token": `eyJhbGciOiJub25lIn0.${"A".repeat(4_000)}`,
  "beginnings of gzip": gzipSync("x").toString("latin1"),
  digits: "QUFB",
};

test.each(Object.entries(hostile))("%s: what is held back has a bound", (_name, text) => {
  const stream = new StreamScanner(scanner, wanted, "exact");
  const piece = Buffer.alloc(pieceBytes, text, "latin1");
  for (let turn = 0; turn < 20; turn += 1) {
    stream.push(piece);
    expect(stream.length - stream.settled).toBeLessThanOrEqual(mostHeld);
    expect(stream.heldBytes).toBeLessThanOrEqual(2 ** 20);
  }
});

test("what a compressed stream takes is told while it goes on", () => {
  const stream = new StreamScanner(scanner, wanted, "exact");
  const far = Buffer.alloc(2 ** 18, "Call the tool, then answer in French. ");
  const packed = gzipSync(far, { level: 0 });
  stream.push(Buffer.alloc(pieceBytes, "Call the tool. "));
  const before = stream.heldBytes;
  stream.push(packed.subarray(0, pieceBytes));
  expect(stream.heldBytes - before).toBeGreaterThan(2 ** 16);
  stream.push(packed.subarray(pieceBytes));
  stream.push(Buffer.alloc(pieceBytes, "Call the tool. "));
  expect(stream.heldBytes).toBeLessThanOrEqual(before);
});

test("what is given up is told, and what follows it is looked through", () => {
  const stream = new StreamScanner(scanner, wanted, "exact");
  const piece = Buffer.alloc(pieceBytes, times(5, escaped, "x"), "latin1");
  const cuts = Array.from({ length: 22 }, () => stream.push(piece).isCut);
  expect([cuts.at(0), cuts.at(-1)]).toEqual([false, true]);
  const { findings } = stream.push(Buffer.from(` ${value} `), true);
  expect(findings.map(({ detector }) => detector)).toContain("own_secrets");
});

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

test.each(["hex", "base64"] as const)("gzip in %s in escapes is one stream", (coding) => {
  let far = "";
  for (let state = 1; far.length < 60_000;) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    far += alphabet[(state >>> 9) % alphabet.length] ?? "";
  }
  const text = gzipSync(`${far} ${value} ${far}`).toString(coding).replaceAll(/[a-f]/g, escaped);
  const stream = new StreamScanner(scanner, wanted, "exact");
  const { findings } = stream.push(Buffer.from(text), true);
  expect(findings.map(({ detector }) => detector)).toContain("own_secrets");
});

test("what began long before its first escape is found once, by the rest of its run", () => {
  const key = "ghp_0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT";
  const text = `${"20".repeat(30_000)}${Buffer.from(`${key}${checkDigits(key.slice(4))} `).toString("hex")}`;
  const coded = text.replaceAll(/[a-f]/g, escaped);
  const stream = new StreamScanner(scanner, wanted, "exact");
  const found = [
    stream.push(Buffer.from(coded)),
    stream.push(Buffer.from("\n".repeat(40_000)), true),
  ];
  expect(found.flatMap(({ findings }) => findings.map(({ detector }) => detector))).toEqual([
    "provider_keys",
  ]);
});
