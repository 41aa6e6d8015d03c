/**
 * `node bench/dlp.ts`: what dlp costs for a request, and how fast it reads, in time of the processor.
 *
 * A hundred secrets are known, and every built-in detector is on.
 */
import { randomBytes } from "node:crypto";
import { detectorNames } from "../src/dlp/detectors.ts";
import { OwnSecrets } from "../src/dlp/own-secrets.ts";
import { Scanner } from "../src/dlp/scanner.ts";
import { StreamScanner } from "../src/dlp/stream-scanner.ts";
import { dlp } from "../src/plugins/dlp/plugin.ts";
import { Secret } from "../src/secret.ts";
import { benignRequests } from "../test/support/dlp-corpus.ts";
import { message, PluginBench } from "../test/support/plugin-bench.ts";

const rounds = 5;
const text =
  'The quick brown fox jumps over the lazy dog; the page https://example.com/docs?id=17 says "how".\nCall the tool, then answer in French. ';
const messages = Array.from({ length: 25 }, () => ({ role: "user", content: text }));
const request = JSON.stringify({ model: "gpt-4.1", messages }).slice(0, 4_094);
const body = Buffer.from(`${request.slice(0, request.lastIndexOf("{") - 1)}]}`.padEnd(4_096));
const mixed = Buffer.concat(
  benignRequests(2_000).flatMap((one) => [one.body, Buffer.from("\n\n")]),
);

const held = Array.from({ length: 100 }, () => new Secret(randomBytes(24).toString("base64url")));
const own = new OwnSecrets();
for (const secret of held) own.add(secret);
const scanner = new Scanner({ own, maxDepth: 5, maxDecodedBytes: 2 ** 25 });
const wanted = new Set<string>(detectorNames);

const bench = new PluginBench();
const host = "api.example.test";
const all = { detectors: ["standard", "financial", "personal", "jwt", "named_secrets"] };
const looking = bench.create(dlp, { default: { ...all, action: "refuse" } });
const passing = bench.create(dlp, { default: { action: "pass" } });

function stream(bytes: Buffer): void {
  const scan = new StreamScanner(scanner, wanted);
  for (let at = 0; at < bytes.length; at += 65_536) scan.push(bytes.subarray(at, at + 65_536));
}

const shape = { to: `${host}:80`, path: "/v1/chat/completions?x=1", body };
const prose = Buffer.alloc(8 * 2 ** 20, text);

interface Contestant {
  readonly run: () => unknown;
  readonly times: number;
  /** For a rate; what is without is told by its time. */
  readonly bytes?: number;
}

const contestants: Readonly<Record<string, Contestant>> = {
  "a context alone": { run: () => message(shape), times: 5_000 },
  "a request of 4 KiB, all detectors, with its context": {
    run: () => looking.onRequest?.(message(shape)),
    times: 5_000,
  },
  "a request where nothing is looked for, with its context": {
    run: () => {
      const context = message(shape);
      return passing.wantsBody?.(context) === true || passing.onRequest?.(context);
    },
    times: 5_000,
  },
  "prose in pieces of 64 KiB": { run: () => stream(prose), times: 2, bytes: prose.length },
  "bodies of agents in pieces of 64 KiB": {
    run: () => stream(mixed),
    times: 2,
    bytes: mixed.length,
  },
};

const seen = new Map<string, number[]>();
for (let round = 0; round <= rounds; round += 1) {
  for (const [name, { run, times }] of Object.entries(contestants)) {
    const before = process.cpuUsage();
    for (let time = 0; time < times; time += 1) run();
    const { user, system } = process.cpuUsage(before);
    // The first round warms up.
    if (round > 0) seen.set(name, [...(seen.get(name) ?? []), (user + system) / times]);
  }
}
for (const [name, { bytes }] of Object.entries(contestants)) {
  const sorted = (seen.get(name) ?? []).toSorted((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
  const figure =
    bytes === undefined ? `${median.toFixed(1)} µs` : `${(bytes / median).toFixed(0)} MB/s`;
  console.log(`${name.padEnd(58)} ${figure}`);
}
