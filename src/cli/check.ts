/** `check`: everything that can be known about a file without serving it. */
import { redact } from "../admin/redact.ts";
import { buildProblems, rejectedProblems, withUnusedKeys } from "../app/build-problems.ts";
import { buildRuntime } from "../app/build.ts";
import { CarriedState } from "../app/carried-state.ts";
import { ChainAcceptance } from "../app/chaining/acceptance.ts";
import type { ChainPlan } from "../app/chaining/plan.ts";
import { definitionsFor } from "../app/definitions.ts";
import { loadConfig } from "../config/load.ts";
import { formatProblem, type Problem } from "../yaml/problem.ts";
import { ProxyError } from "../errors.ts";
import { createLogger } from "../telemetry/log.ts";
import { Metrics } from "../telemetry/metrics.ts";
import { OwnListeners } from "../upstream/own-listeners.ts";
import type { ServeCommand } from "./serve.ts";
import { printableJson } from "./event-line.ts";
import { packageVersion } from "./version.ts";

interface CheckCommand extends ServeCommand {
  /** One JSON document with everything, in place of lines. */
  readonly json: boolean;
}

/** What is known of a file. */
interface Examined {
  /** What is wrong; the rest is there only where nothing is. */
  readonly problems: readonly Problem[];
  readonly warnings: readonly (Problem | string)[];
  /** The endpoints that were asked; absent where none was to be. */
  readonly probed?: readonly string[];
  readonly configuration?: unknown;
}

/** Prints the effective configuration, or every problem, and resolves with the exit code. */
export async function check(command: CheckCommand): Promise<number> {
  let examined: Examined;
  try {
    examined = await examine(command);
  } catch (error) {
    if (!(error instanceof ProxyError)) throw error;
    if (!command.json) {
      process.stderr.write(`authbridge-proxy: ${error.message}\n`);
      return 2;
    }
    examined = refused([
      { file: command.file, line: 1, column: 1, keyPath: "", message: error.message },
    ]);
  }
  if (command.json) process.stdout.write(`${printableJson(forJson(examined), 2)}\n`);
  else tell(examined);
  return examined.problems.length === 0 ? 0 : 2;
}

async function examine(command: ServeCommand): Promise<Examined> {
  const options = { lenient: command.lenient, env: process.env };
  const loaded = await withUnusedKeys(loadConfig(command.file, options));
  if (loaded.kind === "rejected") return refused(await rejectedProblems(loaded));
  const told: string[] = [];
  const log = createLogger("warn", {
    write: (line) => {
      const warning = policyWarningOf(line);
      if (warning !== undefined) told.push(warning);
    },
  });
  const metrics = new Metrics({ version: packageVersion(), generation: () => 0 });
  let chain: ChainPlan | undefined;
  try {
    const definitions = await definitionsFor(loaded);
    const built = await buildRuntime(
      loaded.config,
      0,
      {
        log,
        metrics,
        ownListeners: new OwnListeners(),
        env: process.env,
        carried: new CarriedState(),
        definitions,
        acceptance: new ChainAcceptance(log, metrics),
      },
      { start: false, probe: command.probe === "always" },
    );
    if (built.kind === "failed") return refused(buildProblems(loaded, built.problems));
    await built.runtime.close();
    chain = built.chain;
  } finally {
    metrics.close();
  }
  const ofChain = (chain?.warnings ?? []).map((warning) => `upstream_proxy: ${warning}`);
  const shown =
    chain === undefined
      ? loaded.config
      : { ...loaded.config, upstream_proxy_status: { spec: chain.view } };
  // Those that failed are problems of the file by now.
  const probed = (chain?.endpoints ?? []).map(({ url }) => url);
  return {
    problems: [],
    warnings: [...loaded.warnings, ...told, ...ofChain],
    ...(command.probe === "always" ? { probed } : {}),
    configuration: redact(shown),
  };
}

function refused(problems: readonly Problem[]): Examined {
  return { problems, warnings: [] };
}

/** What a plugin would log at the start about its policy: rules that never match, entries that admit everybody. */
function policyWarningOf(line: string): string | undefined {
  const { warning } = JSON.parse(line) as { readonly warning?: unknown };
  return typeof warning === "string" ? warning : undefined;
}

function tell({ problems, warnings, probed, configuration }: Examined): void {
  const lines = [
    ...problems.map(formatProblem),
    ...(probed ?? []).map((url) => `probe: reached ${url}`),
    ...(probed?.length === 0 ? ["probe: the file has no upstream_proxy.readiness_endpoints"] : []),
    ...warnings.map((one) => `warning: ${typeof one === "string" ? one : formatProblem(one)}`),
  ];
  for (const line of lines) process.stderr.write(`${line}\n`);
  if (problems.length === 0) process.stdout.write(`${JSON.stringify(configuration, null, 2)}\n`);
}

function forJson({ problems, warnings, ...rest }: Examined): unknown {
  return {
    valid: problems.length === 0,
    problems: problems.map(placed),
    warnings: warnings.map((one) => (typeof one === "string" ? { message: one } : placed(one))),
    ...rest,
  };
}

function placed({ keyPath: key, ...problem }: Problem): unknown {
  return { key, ...problem };
}
