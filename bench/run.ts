/**
 * `npm run bench`: starts origin, IdP, load generator and the proxies, measures every case in
 * interleaved rounds, and prints tables of ratios.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";

import { CASES } from "./cases.ts";
import { Child, pinning } from "./child.ts";
import { CONTESTANTS, goProgram, otherBuild, withFlags } from "./contestants.ts";
import { measure } from "./measure.ts";
import type { Bench, Row } from "./measure.ts";
import { table } from "./report.ts";
import { Stage } from "./stage.ts";

const FILES_PER_CONNECTION = 2;

const USAGE = `node bench/run.ts [--case NAME,…] [--peers NAME,…] [--rounds N] [--seconds S] [--json FILE]
    [--go PATH] [--other CHECKOUT] [--flags="NODE OPTIONS"]…
cases: ${CASES.map((test) => test.name).join(" ")}
peers: ${CONTESTANTS.map((contestant) => contestant.name).join(" ")}`;

function list(value: string | undefined, known: readonly string[]): readonly string[] {
  const names = (value ?? "").split(",").filter((name) => name !== "");
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    process.stderr.write(`unknown name ${unknown}\n${USAGE}\n`);
    process.exit(2);
  }
  return names;
}

const { values } = parseArgs({
  options: {
    case: { type: "string" },
    peers: { type: "string" },
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "0.8" },
    json: { type: "string" },
    go: { type: "string" },
    other: { type: "string" },
    flags: { type: "string", multiple: true, default: [] },
    help: { type: "boolean" },
  },
});
if (values.help === true) {
  process.stdout.write(`${USAGE}\n`);
  process.exit(0);
}

const names = list(
  values.case,
  CASES.map((test) => test.name),
);
const contestants =
  values.go === undefined ? CONTESTANTS : [...CONTESTANTS, goProgram(resolve(values.go))];
const peers = list(
  values.peers,
  contestants.map((contestant) => contestant.name),
);
const extra = [
  ...(values.other === undefined ? [] : [otherBuild(resolve(values.other))]),
  ...values.flags.map(withFlags),
];
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
if (!(rounds >= 1) || !(seconds > 0)) {
  process.stderr.write(`${USAGE}\n`);
  process.exit(2);
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** The soft limit of open files, which the children inherit. */
function fileLimit(): number {
  const text = execFileSync("sh", ["-c", "ulimit -n"], { encoding: "utf8" }).trim();
  return text === "unlimited" ? Infinity : Number(text);
}

function loadAverage(): string {
  try {
    return readFileSync("/proc/loadavg", "utf8").split(" ").slice(0, 3).join(" ");
  } catch {
    return "unknown";
  }
}

const limit = fileLimit();
const machine = {
  date: new Date().toISOString(),
  node: process.version,
  kernel: release(),
  cpu: `${cpus().length} x ${cpus()[0]?.model ?? "unknown"}`,
  memoryGb: Math.round(totalmem() / 1e9),
  pinning,
  openFiles: limit,
  loadAverageAtStart: loadAverage(),
  rounds,
  seconds,
};
process.stdout.write(
  `${machine.date}  Node ${machine.node}  Linux ${machine.kernel}  ${machine.cpu}  ` +
    `${machine.memoryGb} GB\n${pinning}; ulimit -n ${limit}; load average ${machine.loadAverageAtStart}; ` +
    `${rounds} interleaved rounds of ${seconds} s, medians\n\n`,
);

const stage = await Stage.open();
const load = new Child("bench", join(stage.directory, "load.log"), process.execPath, [
  join(import.meta.dirname, "load.ts"),
]);
await load.ports();
const bench: Bench = { stage, load, options: { rounds, seconds, contestants, peers, extra }, say };
const results: Record<string, readonly Row[]> = {};
const startedAt = performance.now();
try {
  for (const test of CASES) {
    if (names.length > 0 && !names.includes(test.name)) {
      continue;
    }
    if (test.kind === "idle" && limit < test.count * FILES_PER_CONNECTION + 200) {
      process.stdout.write(
        `### ${test.name}: skipped, ulimit -n is ${limit} and ${FILES_PER_CONNECTION} files are wanted for each connection\n\n`,
      );
      continue;
    }
    say(`… ${test.name}`);
    const before = await stage.idpCalls();
    const rows = await measure(bench, test);
    const after = await stage.idpCalls();
    results[test.name] = rows;
    process.stdout.write(`${table(test, rows)}\n`);
    if (test.role === "forward-exchange" || test.role === "reverse-jwt") {
      process.stdout.write(
        `\nIdP asked ${after.token - before.token} times for a token, ${after.jwks - before.jwks} times for keys.\n`,
      );
    }
    process.stdout.write("\n");
  }
} finally {
  await load.stop();
  await stage.close();
}
process.stdout.write(`took ${Math.round((performance.now() - startedAt) / 1000)} s\n`);
if (values.json !== undefined) {
  mkdirSync(dirname(values.json), { recursive: true });
  writeFileSync(values.json, `${JSON.stringify({ machine, results }, undefined, 2)}\n`);
}
const hasFailed = Object.values(results).some((rows) =>
  rows.some((row) => row.failed !== undefined),
);
process.exitCode = hasFailed ? 1 : 0;
