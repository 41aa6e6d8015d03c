/** `check`: everything that can be known about a file without serving it. */
import { redact } from "../admin/redact.ts";
import { buildProblems, rejectedProblems } from "../app/build-problems.ts";
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
import { packageVersion } from "./version.ts";

/** Prints the effective configuration, or every problem, and resolves with the exit code. */
export async function check(command: ServeCommand): Promise<number> {
  try {
    return await checkFile(command);
  } catch (error) {
    if (!(error instanceof ProxyError)) throw error;
    process.stderr.write(`authbridge-proxy: ${error.message}\n`);
    return 2;
  }
}

async function checkFile(command: ServeCommand): Promise<number> {
  const loaded = await loadConfig(command.file, { lenient: command.lenient, env: process.env });
  if (loaded.kind === "rejected") return refuse(await rejectedProblems(loaded));
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
        carried: new CarriedState(),
        definitions,
        acceptance: new ChainAcceptance(log, metrics),
      },
      { start: false, probe: command.probe === "always" },
    );
    if (built.kind === "failed") return refuse(buildProblems(loaded, built.problems));
    await built.runtime.close();
    chain = built.chain;
    if (command.probe === "always") reportProbe(chain);
  } finally {
    metrics.close();
  }
  for (const warning of loaded.warnings)
    process.stderr.write(`warning: ${formatProblem(warning)}\n`);
  for (const warning of told) process.stderr.write(`warning: ${warning}\n`);
  for (const warning of chain?.warnings ?? [])
    process.stderr.write(`warning: upstream_proxy: ${warning}\n`);
  const shown =
    chain === undefined
      ? loaded.config
      : { ...loaded.config, upstream_proxy_status: { spec: chain.view } };
  process.stdout.write(`${JSON.stringify(redact(shown), null, 2)}\n`);
  return 0;
}

/** What a plugin would log at the start about its policy: rules that never match, entries that admit everybody. */
function policyWarningOf(line: string): string | undefined {
  const { warning } = JSON.parse(line) as { readonly warning?: unknown };
  return typeof warning === "string" ? warning : undefined;
}

/** Those that failed are problems of the file by now. */
function reportProbe(chain: ChainPlan | undefined): void {
  const endpoints = chain?.endpoints ?? [];
  for (const { url } of endpoints) process.stderr.write(`probe: reached ${url}\n`);
  if (endpoints.length === 0)
    process.stderr.write("probe: the file has no upstream_proxy.readiness_endpoints\n");
}

function refuse(problems: readonly Problem[]): number {
  for (const problem of problems) process.stderr.write(`${formatProblem(problem)}\n`);
  return 2;
}
