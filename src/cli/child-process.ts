/** A command that runs beside a proxy of this process, with the signals of this process. */
import { type ChildProcess, spawn } from "node:child_process";

/** How it ended. */
export type CommandEnding =
  | { readonly kind: "exited"; readonly code: number }
  | { readonly kind: "killed"; readonly signal: NodeJS.Signals }
  | { readonly kind: "timed-out" }
  | { readonly kind: "not-started"; readonly code: string };

/** What is run, and for how long at most. */
export interface CommandOptions {
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** When it is ended; never, when absent. */
  readonly timeoutMs?: number;
  /** What this process passes on to it; of other signals, an interrupt does not end this process before the command. */
  readonly passSignals: readonly NodeJS.Signals[];
  /** Hears of its process, once there is one. */
  readonly onStarted?: ((pid: number) => void) | undefined;
  /** Whether what it prints goes to standard error. */
  readonly isQuiet?: boolean;
}

const graceMs = 2_000;

/** Its input and output are those of this process, unless it is quiet. Never rejects. */
export function runCommand(options: CommandOptions): Promise<CommandEnding> {
  const { command, env, timeoutMs, isQuiet = false } = options;
  const [file = "", ...args] = command;
  return new Promise((resolve) => {
    let child: ChildProcess;
    try {
      child = spawn(file, args, { stdio: ["inherit", isQuiet ? 2 : "inherit", "inherit"], env });
    } catch (error) {
      // Too many arguments, too little memory: of these the system tells before there is a process.
      resolve({ kind: "not-started", code: codeOf(error as NodeJS.ErrnoException) });
      return;
    }
    if (child.pid !== undefined) options.onStarted?.(child.pid);
    let timedOut = false;
    let kill: NodeJS.Timeout | undefined;
    const end = (): void => {
      timedOut = true;
      child.kill("SIGTERM");
      kill = setTimeout(() => child.kill("SIGKILL"), graceMs);
    };
    const limit = timeoutMs === undefined ? undefined : setTimeout(end, timeoutMs);
    const release = holdSignals(options.passSignals, (signal) => void child.kill(signal));
    const settle = (ending: CommandEnding): void => {
      clearTimeout(limit);
      clearTimeout(kill);
      release();
      resolve(timedOut ? { kind: "timed-out" } : ending);
    };
    child.once("error", (error: NodeJS.ErrnoException) =>
      settle({ kind: "not-started", code: codeOf(error) }),
    );
    child.once("exit", (code, signal) =>
      settle(signal === null ? { kind: "exited", code: code ?? 0 } : { kind: "killed", signal }),
    );
  });
}

function codeOf({ code, message }: NodeJS.ErrnoException): string {
  return code ?? message;
}

/** An interrupt from the terminal reaches the command by itself; this process stays to report and to tidy up. */
export function holdSignals(
  passed: readonly NodeJS.Signals[],
  pass: (signal: NodeJS.Signals) => void,
): () => void {
  const stay = (): void => undefined;
  const held = [...new Set<NodeJS.Signals>(["SIGINT", ...passed])].map(
    (signal) => [signal, passed.includes(signal) ? () => pass(signal) : stay] as const,
  );
  for (const [signal, listener] of held) process.on(signal, listener);
  return () => {
    for (const [signal, listener] of held) process.off(signal, listener);
  };
}
