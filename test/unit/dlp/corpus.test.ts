/** What the detectors find of what they should, and of what they should not; docs/dlp.md shows the same figures. */
import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { type DetectorName, detectorNames } from "../../../src/dlp/detectors.ts";
import { OwnSecrets } from "../../../src/dlp/own-secrets.ts";
import { Scanner } from "../../../src/dlp/scanner.ts";
import { benignRequests, positives, Seeded } from "../../support/dlp-corpus.ts";

const perDetector = 200;
const scanner = new Scanner({ own: new OwnSecrets(), maxDepth: 5, maxDecodedBytes: 2 ** 25 });
const names = detectorNames.filter((name) => name !== "own_secrets");
const benign = benignRequests(500);
const all = new Set<string>(detectorNames);
const alarms = new Map<string, number>();

const writings: readonly ((text: string) => string)[] = [
  (text) => text,
  (text) => JSON.stringify({ note: `line\n${text}\nend` }),
  (text) => Buffer.from(`it is ${text} .`).toString("base64"),
  (text) => `q=${encodeURIComponent(text)}&x=1`,
];

function isFound(name: DetectorName, text: string): boolean {
  const { findings } = scanner.scan(Buffer.from(text), all);
  return findings.some(({ detector }) => detector === name);
}

const missed = new Map<string, number>();

beforeAll(() => {
  for (const { path, headers, body } of benign) {
    const fields = Object.entries(headers).filter(
      ([name]) => !/^(?:authorization|cookie|x-api-key)$/.test(name),
    );
    const head = fields.map(([name, value]) => `${name}: ${value}\n`).join("");
    const found = [Buffer.from(path), Buffer.from(head), body].flatMap(
      (bytes) => scanner.scan(bytes, all).findings,
    );
    for (const detector of new Set(found.map((one) => one.detector)))
      alarms.set(detector, (alarms.get(detector) ?? 0) + 1);
  }
  for (const name of names) {
    const dice = new Seeded(7);
    let count = 0;
    for (let index = 0; index < perDetector; index += 1) {
      const make = dice.pick(positives[name]);
      const write = writings[index % writings.length] as (text: string) => string;
      if (!isFound(name, write(make(dice)))) count += 1;
    }
    missed.set(name, count);
  }
});

describe.each(names)("%s", (name) => {
  test("finds every value of its formats, in every writing", () => {
    // What is random is a guess: a password may have no figure.
    expect(missed.get(name)).toBeLessThanOrEqual(name === "named_secrets" ? perDetector / 20 : 0);
  });

  test("finds nothing in traffic without any", () => {
    expect(alarms.get(name) ?? 0).toBe(0);
  });
});

test("docs/dlp.md has the figures", () => {
  const rows = names.map(
    (name) => `${name} ${perDetector} ${missed.get(name)} ${alarms.get(name) ?? 0}`,
  );
  const shown = readFileSync("docs/dlp.md", "utf8")
    .split("\n")
    .map((line) => line.replace(/[|`]/g, " ").trim().split(/\s+/).join(" "));
  expect(shown.filter((line) => rows.includes(line))).toEqual(rows);
});
