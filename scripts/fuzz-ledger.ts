/** The ledger of the fuzzer: for how long each target was fuzzed in all, with how many inputs, and what was found. */
import { readFileSync, writeFileSync } from "node:fs";

/** One run of one target. */
export interface FuzzRun {
  readonly target: string;
  readonly seconds: number;
  readonly inputs: number;
  readonly finds: number;
  /** As YYYY-MM-DD. */
  readonly date: string;
}

const head = ["target", "time in all", "inputs", "finds", "last run"];
const row =
  /^\| `([\w-]+)`\s*\|\s*(\d+):(\d\d):(\d\d)\s*\|\s*(\d+)\s*\|\s*(\d+)\s*\|\s*(\d{4}-\d\d-\d\d)\s*\|$/;

/** The text of a ledger with a run added to the row of its target; what is not a row of the table stays. */
export function withRun(text: string, run: FuzzRun): string {
  const lines = text.split("\n");
  const first = lines.findIndex((line) => line.startsWith(`| ${head[0]} `));
  const behind = lines.findIndex((line, at) => at > first && !line.startsWith("|"));
  const [before, rows, after] =
    first === -1
      ? [[...lines.slice(0, -1), ""], [], [""]]
      : [lines.slice(0, first), lines.slice(first + 2, behind), lines.slice(behind)];
  const runs = new Map(rows.map((line) => readRow(line)).map((one) => [one.target, one]));
  const known = runs.get(run.target);
  runs.set(run.target, {
    target: run.target,
    seconds: Math.round(run.seconds) + (known?.seconds ?? 0),
    inputs: run.inputs + (known?.inputs ?? 0),
    finds: run.finds + (known?.finds ?? 0),
    date: known !== undefined && known.date > run.date ? known.date : run.date,
  });
  const sorted = [...runs.values()].sort((a, b) => (a.target < b.target ? -1 : 1));
  return [...before, ...tableOf(sorted), ...after].join("\n");
}

/** Adds a run to the file. */
export function noteRun(file: string, run: FuzzRun): void {
  writeFileSync(file, withRun(readFileSync(file, "utf8"), run));
}

function readRow(line: string): FuzzRun {
  const [, target = "", hours, minutes, seconds, inputs, finds, date = ""] = row.exec(line) ?? [];
  if (target === "") throw new SyntaxError(`no row of a ledger: ${line}`);
  const time = Number(hours) * 3_600 + Number(minutes) * 60 + Number(seconds);
  return { target, seconds: time, inputs: Number(inputs), finds: Number(finds), date };
}

/** With the columns as wide as Markdown is formatted here. */
function tableOf(runs: readonly FuzzRun[]): string[] {
  const cells = runs.map(({ target, seconds, inputs, finds, date }) => [
    `\`${target}\``,
    timeOf(seconds),
    String(inputs),
    String(finds),
    date,
  ]);
  const widths = head.map((name, at) =>
    Math.max(name.length, ...cells.map((line) => line[at]?.length ?? 0)),
  );
  const rule = widths.map((width) => "-".repeat(width));
  return [head, rule, ...cells].map(
    (line) => `| ${line.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(" | ")} |`,
  );
}

function timeOf(seconds: number): string {
  const two = (value: number): string => String(value).padStart(2, "0");
  return `${Math.floor(seconds / 3_600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}
