/** `policy test`: the cases of a directory against the policy that each file names, without a proxy and without a network. */
import { readdir, readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { messageOf, ProxyError } from "../../errors.ts";
import { formatProblem } from "../../config/problem.ts";
import { loadConfig } from "../../config/load.ts";
import { assemble } from "../../pipeline/assemble.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import { PluginConfigError } from "../../pipeline/plugin.ts";
import { builtinPlugins } from "../../plugins/index.ts";
import { createLogger } from "../../telemetry/log.ts";
import { refuseCommand } from "../config-file.ts";
import { reachNobody, withChain } from "./explain.ts";
import { printableJson } from "../event-line.ts";
import type { PolicyTestCommand } from "../arguments/policy-command-line.ts";
import { type Expectation, type PolicyCase, type PolicySubject, readCaseFile } from "./cases.ts";
import { judgeProbe, type ProbeVerdict, type VerdictOptions } from "./verdict.ts";

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
      throw new ProxyError("config.invalid", `${directory}: ${messageOf(error)}`);
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
  const text = await readFile(file, "utf8");
  if (text.length > maxFileBytes)
    throw new ProxyError("config.invalid", `${file} is larger than 4 MiB`);
  const read = readCaseFile(text, file);
  // Policies and configurations may lie beside their cases.
  if (read === undefined) return [];
  if ("problems" in read) throw new ProxyError("config.invalid", read.problems.join("\n"));
  const { subject, cases } = read;
  return withSubject(subject, file, async (options) => {
    const outcomes: Outcome[] = [];
    for (const one of cases) {
      const verdict = await judgeProbe(one.probe, options);
      const differences = differencesOf(one.expected, verdict);
      outcomes.push({ file, name: one.name, question: questionOf(one), verdict, differences });
    }
    return outcomes;
  });
}

/** Gives the chain that the cases are about. Paths are relative to the file of cases. */
async function withSubject<T>(
  subject: PolicySubject,
  file: string,
  use: (options: VerdictOptions) => Promise<T>,
): Promise<T> {
  const folder = dirname(file);
  if (subject.kind === "config") {
    const path = resolve(folder, subject.file);
    const loaded = await loadConfig(path, { env: process.env, allowUnset: true });
    if (!loaded.ok)
      throw new ProxyError("config.invalid", loaded.problems.map(formatProblem).join("\n"));
    const used = await withChain(loaded, async ({ surroundings }) => ({
      value: await use(surroundings),
    }));
    if (used === undefined) throw new ProxyError("config.invalid", `${path} cannot be used`);
    return used.value;
  }
  const { policy_file: policyFile } = subject.config;
  const config =
    typeof policyFile === "string"
      ? { ...subject.config, policy_file: resolve(folder, policyFile) }
      : subject.config;
  const pipeline = await policyChain(config, file);
  try {
    // As with a bridge that opens everything: the requests are what the cases are about.
    return await use({
      pipeline,
      skipHosts: { matches: () => false },
      bridge: { decide: () => ({ action: "bridge" }) },
      maxBodyBytes: maxFileBytes,
    });
  } finally {
    for (const { plugin } of pipeline.steps) await plugin.close?.();
  }
}

/** A chain of egress-policy alone. */
async function policyChain(
  config: Readonly<Record<string, unknown>>,
  file: string,
): Promise<Pipeline> {
  const log = createLogger("silent");
  const entry = {
    name: "egress-policy",
    onError: "enforce",
    allowWeakenedAuth: false,
    config,
  } as const;
  const assembly = await assemble([entry], {
    direction: "outbound",
    otherwise: "deny",
    log,
    definitions: builtinPlugins,
    depsFor: (instance) => ({
      instance,
      log,
      clock: { now: () => Date.now() },
      fetch: reachNobody,
      carry: (_key, make) => make(),
      count: () => undefined,
      changed: () => undefined,
    }),
  });
  if ("pipeline" in assembly) return assembly.pipeline;
  const problems = assembly.problems.map(
    ({ path, message }) => `${file}: egress_policy ${path.slice(1).join(".")}: ${message}`,
  );
  throw new ProxyError("config.invalid", problems.join("\n"));
}

function differencesOf(expected: Expectation, verdict: ProbeVerdict): string[] {
  const { verdict: wanted, reason, sent, ...exact } = expected;
  const differences: string[] = [];
  if (wanted !== verdict.verdict) differences.push(`expected ${wanted}, got ${verdict.verdict}`);
  for (const [key, value] of Object.entries(exact)) {
    const got = verdict[key as keyof typeof exact];
    if (got !== value) differences.push(`expected ${key} ${value}, got ${String(got ?? "none")}`);
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
