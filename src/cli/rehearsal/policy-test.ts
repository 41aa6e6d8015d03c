/** `policy test`: the cases of a directory against the policy that each file names, without a proxy and without a network. */
import { readdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { ProxyError } from "../../errors.ts";
import { textOfGiven, unreadable } from "../../files/given-file.ts";
import { formatKeyPath, formatProblem } from "../../yaml/problem.ts";
import { loadConfig, parseConfig } from "../../config/load.ts";
import { PluginConfigError } from "../../pipeline/plugin.ts";
import { buildProblems } from "../../app/build-problems.ts";
import { refuseCommand } from "../config-file.ts";
import { withChain } from "./explain.ts";
import { printableJson } from "../event-line.ts";
import {
  type CaseFile,
  type Expectation,
  type PolicyCase,
  type PolicySubject,
  readCaseFile,
} from "./cases.ts";
import { judgeProbe, type ProbeVerdict, type VerdictOptions } from "./verdict.ts";

interface PolicyTestCommand {
  readonly directory: string;
  readonly json: boolean;
}

/** One case and how it went. */
interface Outcome {
  readonly file: string;
  readonly name: string;
  readonly question: string;
  readonly verdict: ProbeVerdict;
  /** What differs from what the case expects; empty when it passed. */
  readonly differences: readonly string[];
}

const maxFiles = 1_000;
const maxFileBytes = 4 * 1024 * 1024;

/** Prints the table; 0: all pass, 1: one fails, 2: a file cannot be used. */
export async function testPolicies({ directory, json }: PolicyTestCommand): Promise<number> {
  try {
    const files = await caseFiles(directory);
    const outcomes: Outcome[] = [];
    for (const file of files) outcomes.push(...(await runFile(file)));
    if (outcomes.length === 0)
      throw new ProxyError("config.invalid", `${directory} has no YAML file with cases`);
    process.stdout.write(json ? `${printableJson(outcomes.map(forJson), 2)}\n` : table(outcomes));
    return outcomes.every(({ differences }) => differences.length === 0) ? 0 : 1;
  } catch (error) {
    const reason = error instanceof PluginConfigError ? error.message : error;
    return refuseCommand(reason);
  }
}

async function caseFiles(directory: string): Promise<readonly string[]> {
  const found = await readdir(directory, { recursive: true, withFileTypes: true }).catch(
    (error: unknown) => {
      throw unreadable(directory, error);
    },
  );
  const files = found
    .filter((entry) => entry.isFile() && /\.ya?ml$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  if (files.length > maxFiles)
    throw new ProxyError("config.invalid", `${directory} has more than ${maxFiles} files of cases`);
  return files;
}

async function runFile(file: string): Promise<Outcome[]> {
  const read = readCaseFile(await textOfGiven(file, maxFileBytes), file);
  // Policies and configurations may lie beside their cases.
  if (read === undefined) return [];
  const { cases } = read;
  return withSubject(read, file, async (options) => {
    const outcomes: Outcome[] = [];
    for (const one of cases) {
      const verdict = await judgeProbe(one.probe, options);
      const differences = differencesOf(one.expected, verdict);
      outcomes.push({ file, name: one.name, question: questionOf(one), verdict, differences });
    }
    return outcomes;
  });
}

/** Gives the pipeline that the cases are about, and what surrounds it. */
async function withSubject<T>(
  { subject, locate }: CaseFile,
  file: string,
  use: (options: VerdictOptions) => Promise<T>,
): Promise<T> {
  const isAlone = subject.kind === "policy";
  const loaded = isAlone
    ? policyAlone(subject, file, locate)
    : await loadConfig(resolve(dirname(file), subject.file), {
        env: process.env,
        allowUnset: true,
      });
  if (loaded.kind === "rejected") throw refusedFile(loaded.problems.map(formatProblem));
  // With a policy alone as with a bridge that opens everything: the requests are what the cases are about.
  const opening = isAlone ? { bridge: { decide: () => ({ action: "bridge" }) as const } } : {};
  const used = await withChain(loaded, ({ surroundings }) => use({ ...surroundings, ...opening }));
  if (used.kind === "used") return used.value;
  throw refusedFile(buildProblems(loaded, used.problems).map(formatProblem));
}

function refusedFile(problems: readonly string[]): ProxyError {
  return new ProxyError("config.invalid", problems.join("\n"));
}

/** A configuration of egress-policy alone, whose problems are reported with their place in the file of cases. */
function policyAlone(
  { key, config }: Extract<PolicySubject, { readonly kind: "policy" }>,
  file: string,
  locate: CaseFile["locate"],
): ReturnType<typeof parseConfig> {
  const { policy_file: policyFile } = config;
  const placed =
    typeof policyFile === "string" ? { policy_file: resolve(dirname(file), policyFile) } : {};
  const plugins = [{ name: "egress-policy", config: { ...config, ...placed } }];
  const whole = {
    listener: { roles: ["forward"] },
    pipeline: { outbound: { default: "deny", plugins } },
  };
  const loaded = parseConfig(Buffer.from(JSON.stringify(whole)), file, { allowUnset: true });
  if (loaded.kind === "rejected") return loaded;
  return {
    ...loaded,
    problemAt: (path, ...said) => {
      // Below `pipeline.outbound.plugins[0].config`.
      const at = key === "policy" ? [key] : [key, ...path.slice(5)];
      const problem = loaded.problemAt(path, ...said);
      return { ...problem, ...locate(at), keyPath: formatKeyPath(at) };
    },
  };
}

function differencesOf(expected: Expectation, verdict: ProbeVerdict): string[] {
  const { expect: wanted, reason, sent, ...exact } = expected;
  const differences: string[] = [];
  if (wanted !== verdict.verdict) differences.push(`expected ${wanted}, got ${verdict.verdict}`);
  for (const [key, value] of Object.entries(exact)) {
    const got = verdict[key as keyof typeof exact];
    if (value !== undefined && got !== value)
      differences.push(`expected ${key} ${value}, got ${String(got ?? "none")}`);
  }
  if (reason !== undefined && !verdict.reason.includes(reason))
    differences.push(`expected a reason with "${reason}"`);
  if (sent !== undefined && sent !== verdict.sentPath)
    differences.push(`expected to send ${sent}, got ${verdict.sentPath ?? "nothing"}`);
  return differences;
}

function questionOf({ probe: { destination, isTunnel, request, source } }: PolicyCase): string {
  const place = isTunnel ? destination.authority : destination.origin;
  const asked =
    request === undefined ? `CONNECT ${place}` : `${request.method} ${place}${request.path}`;
  return source.binary === undefined ? asked : `${asked} by ${source.binary}`;
}

function table(outcomes: readonly Outcome[]): string {
  const rows = outcomes.map(({ name, question, verdict, differences }) => [
    differences.length === 0 ? "ok" : "FAIL",
    name,
    question,
    verdict.verdict,
    [verdict.entry, verdict.rule === verdict.entry ? undefined : verdict.rule]
      .filter((part) => part !== undefined)
      .join(" "),
  ]);
  const widths = [0, 1, 2, 3].map((at) => Math.max(...rows.map((row) => (row[at] ?? "").length)));
  const lines: string[] = [];
  let file = "";
  for (const [index, outcome] of outcomes.entries()) {
    if (outcome.file !== file) lines.push((file = outcome.file));
    const row = rows[index] ?? [];
    lines.push(`  ${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join("  ")}`.trimEnd());
    for (const difference of outcome.differences)
      lines.push(`        ${difference} (${outcome.verdict.reason})`);
  }
  const failed = outcomes.filter(({ differences }) => differences.length > 0).length;
  lines.push(`${outcomes.length - failed} passed, ${failed} failed`);
  return `${lines.map((line) => line.replaceAll(/[^\u0020-\u007e\u00a0-\uffff]/g, "?")).join("\n")}\n`;
}

function forJson({ file, name, question, verdict, differences }: Outcome): unknown {
  const { verdict: got, plugin, entry, rule, reason } = verdict;
  const passed = differences.length === 0;
  return { file, name, question, passed, verdict: got, plugin, entry, rule, reason, differences };
}
