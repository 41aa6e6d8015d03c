/** A command that runs beside the doctor, with an end that the doctor sets. */
import { spawn } from "node:child_process";

/** How it ended. */
export type CommandEnding =
  | { readonly kind: "exited"; readonly code: number }
  | { readonly kind: "killed"; readonly signal: string }
  | { readonly kind: "timed-out" }
  | { readonly kind: "not-started"; readonly code: string };

/** What is run, and for how long at most. */
export interface CommandOptions {
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly timeoutMs: number;
}

const graceMs = 2_000;

/** Its input and output are those of this process. Never rejects. */
export function runCommand({ command, env, timeoutMs }: CommandOptions): Promise<CommandEnding> {
  const [file = "", ...args] = command;
  return new Promise((resolve) => {
    const child = spawn(file, args, { stdio: "inherit", env });
    let timedOut = false;
    let kill: NodeJS.Timeout | undefined;
    const limit = setTimeout(() => {
      timedOut = true;
      child.kill("SIGTERM");
      kill = setTimeout(() => child.kill("SIGKILL"), graceMs);
    }, timeoutMs);
    // An interrupt from the terminal reaches the child too; the doctor stays to report and to tidy up.
    const stay = (): void => undefined;
    const pass = (): void => void child.kill("SIGTERM");
    process.on("SIGINT", stay);
    process.on("SIGTERM", pass);
    const settle = (ending: CommandEnding): void => {
      clearTimeout(limit);
      clearTimeout(kill);
      process.off("SIGINT", stay);
      process.off("SIGTERM", pass);
      resolve(timedOut ? { kind: "timed-out" } : ending);
    };
    child.once("error", (error: NodeJS.ErrnoException) =>
      settle({ kind: "not-started", code: error.code ?? error.message }),
    );
    child.once("exit", (code, signal) =>
      settle(code === null ? { kind: "killed", signal: signal ?? "" } : { kind: "exited", code }),
    );
  });
}
