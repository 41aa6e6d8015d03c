/** What dlp looks through: a planted secret is found whatever stands around it, and a stream shows what the whole shows, in any pieces, in bounded work. */
import { detectorNames, type Finding } from "../../src/dlp/detectors.ts";
import { OwnSecrets } from "../../src/dlp/own-secrets.ts";
import { Scanner } from "../../src/dlp/scanner.ts";
import { StreamScanner } from "../../src/dlp/stream-scanner.ts";
import { Secret } from "../../src/secret.ts";
import { positives, Seeded } from "../support/dlp-corpus.ts";
import { type Dice, inPieces } from "../support/mutation.ts";
import { spellings } from "../support/secret-spellings.ts";
import { type Target, texts } from "./target.ts";

const value = "Zk7-Qw_93rTbXv5LmN8pYd2Hs6Fg";
const maxDecodedBytes = 65_536;
/** Blocks of a stream are looked at with the window before them, and a token that has begun. */
const maxStepsPerByte = 3;
const own = new OwnSecrets();
own.add(new Secret(value));
const scanner = new Scanner({ own, maxDepth: 5, maxDecodedBytes });
const wanted = new Set<string>(detectorNames);
const dice = new Seeded(3);

const leaks: Target = {
  name: "leaks",
  covers: ["/src/dlp/"],
  seeds: [
    ...Object.values(spellings).map((spell) => Buffer.from(`{"a":"${spell(value)}"}`)),
    ...Object.values(positives).flatMap((makers) =>
      makers.map((make) => Buffer.from(make(dice), "utf8")),
    ),
    ...texts('{"a":"\\n\\"\\u0041\\\\u0042"}', "a=%41%2541&b=+", "x".repeat(40)),
  ],
  words: [
    "\\u00",
    "\\n",
    "%",
    "%25",
    "\x1f\x8b\x08\x00",
    "\x78\x9c",
    "eyJ",
    "-----BEGIN PRIVATE KEY-----",
    "sk-",
    "ghp_",
    "token=",
    "@",
    "4111",
    "DE89",
    '"',
    "\n",
    "AAAA",
  ],
  async check(bytes, cut) {
    // What zlib held is given back in another turn.
    await new Promise((resolve) => setImmediate(resolve));
    const { findings, isCut, steps } = scanner.scan(bytes, wanted);
    const outcome = `${[...new Set(findings.map(({ detector }) => detector))].sort().join()} ${String(isCut)}`;
    if (steps > bytes.length * 9 + maxDecodedBytes)
      return { outcome, problem: `${steps} steps for ${bytes.length} bytes` };
    const isOutside = findings.some(
      ({ start, end }) => start < 0 || end > bytes.length || end <= start,
    );
    if (isOutside) return { outcome, problem: "a finding outside of the text" };
    const at = cut.below(bytes.length + 1);
    const planted = Buffer.concat([bytes.subarray(0, at), Buffer.from(value), bytes.subarray(at)]);
    const stream = new StreamScanner(scanner, wanted);
    const scans = [
      scanner.scan(planted, wanted),
      ...inPieces(planted, cut).map((piece) => stream.push(piece)),
    ];
    const isFound = (some: typeof scans): boolean =>
      some.some(
        (one) => one.isCut || one.findings.some(({ detector }) => detector === "own_secrets"),
      );
    if (!isFound(scans.slice(0, 1))) return { outcome, problem: "a planted secret is not found" };
    if (!isFound(scans.slice(1))) return { outcome, problem: "not found in pieces" };
    return { outcome, problem: streamProblem(bytes, findings, cut) };
  },
};

/** Bytes that a stream may hold back: what waits for a block, for a coding below, and a token that has begun. */
const mostHeld = 2 ** 20 + 2 ** 17;

/** What is wrong with the same bytes as a stream that waits for what follows, several times over. */
function streamProblem(bytes: Buffer, whole: readonly Finding[], cut: Dice): string | undefined {
  const stream = new StreamScanner(scanner, wanted, "exact");
  const pieces = inPieces(bytes, cut);
  const scans = pieces.map((piece, index) => stream.push(piece, index === pieces.length - 1));
  if (stream.settled !== bytes.length) return `${stream.settled} settled of ${bytes.length}`;
  const seen = new Set(scans.flatMap((one) => one.findings.map(({ detector }) => detector)));
  const isCut = scans.some((one) => one.isCut);
  const missed = isCut ? undefined : whole.find(({ detector }) => !seen.has(detector));
  if (missed !== undefined)
    return `the stream misses ${missed.detector} below ${missed.via.join()}`;
  const long = new StreamScanner(scanner, wanted, "exact");
  let steps = 0;
  for (let turn = 0; turn < 8; turn += 1) {
    const settled = long.settled;
    for (const piece of pieces) steps += long.push(piece).steps;
    if (long.settled < settled) return "what was settled is not";
    if (long.length - long.settled > mostHeld) return `${long.length - long.settled} bytes held`;
  }
  const most = maxStepsPerByte * (long.length * 9 + maxDecodedBytes);
  return steps > most ? `${steps} steps for a stream of ${long.length} bytes` : undefined;
}

export const targets: readonly Target[] = [leaks];
