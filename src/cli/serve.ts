/** `run`: serves until a signal. */
import { formatProblem } from "../yaml/problem.ts";
import { messageOf, ProxyError } from "../errors.ts";
import { createLogger, type Logger, type LogLevel } from "../telemetry/log.ts";
import { LogDestination } from "../telemetry/log-destination.ts";
import { App } from "../app/app.ts";
import { ConfigRejected } from "../app/build-problems.ts";
import { crewFor } from "../crew/crew.ts";
import { keepServing } from "../crew/faults.ts";
import type { FileCommand } from "./config-file.ts";
import { packageVersion } from "./version.ts";

const levels: readonly string[] = ["debug", "info", "warn", "error"] satisfies LogLevel[];

/** `run` and `check`: whether readiness endpoints of upstream_proxy are asked. */
export interface ServeCommand extends FileCommand {
  readonly probe?: "always" | "never";
}

/** Resolves with the exit code once the process has shut down. */
export async function run(command: ServeCommand): Promise<number> {
  const asked = process.env["LOG_LEVEL"]?.toLowerCase() ?? "";
  const destination = new LogDestination(2);
  process.on("exit", () => destination.flushSync());
  const log = createLogger(isLevel(asked) ? asked : "info", destination);
  if (asked !== "" && !isLevel(asked))
    log.warn({ LOG_LEVEL: asked }, "LOG_LEVEL is none of debug, info, warn, error: using info");
  keepServing(log);
  let running: App | undefined;
  toggleDebug(log, () => running?.levelChanged());
  // Whatever the policy says, and until it is released.
  process.on("SIGUSR2", () => void running?.killAll("SIGUSR2"));
  let app: App;
  const signal = firstSignal();
  try {
    const threads = crewFor({
      writeLines: (text) => destination.write(text),
      onHopeless: (message) => {
        log.fatal(message);
        process.exit(1);
      },
    });
    const version = packageVersion();
    app = await App.start({ ...command, env: process.env, version, log, threads });
    running = app;
  } catch (error) {
    return refuse(error);
  }
  const name = await signal;
  log.info({ signal: name }, "shutting down");
  await app.close();
  log.info("stopped");
  await destination.close();
  return 0;
}

function isLevel(text: string): text is LogLevel {
  return levels.includes(text);
}

/** The first of them drains; a second one ends the process at once. The terminal is gone with SIGHUP, the agents may not be. */
function firstSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let stopping = false;
    const onSignal = (name: NodeJS.Signals): void => {
      if (stopping) process.exit(1);
      stopping = true;
      resolve(name);
    };
    for (const name of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(name, onSignal);
  });
}

/** SIGUSR1 switches between debug and the configured level. It also keeps Node's debugger from starting. */
function toggleDebug(log: Logger, changed: () => void): void {
  const configured = log.level;
  process.on("SIGUSR1", () => {
    log.level = log.level === "debug" ? configured : "debug";
    log.info({ level: log.level }, "log level changed");
    changed();
  });
}

function refuse(error: unknown): number {
  if (error instanceof ConfigRejected) {
    for (const problem of error.problems) process.stderr.write(`${formatProblem(problem)}\n`);
    return 2;
  }
  if (error instanceof ProxyError) {
    process.stderr.write(`authbridge-proxy: ${error.message}\n`);
    return error.code === "config.invalid" ? 2 : 1;
  }
  process.stderr.write(`authbridge-proxy: ${messageOf(error)}\n`);
  return 1;
}
