/** What a command line asks for, from its arguments to the exit code: 0 success, 1 failure while running, 2 bad usage or file. */
import { parseCommand } from "./command-line.ts";
import { commands } from "./commands.ts";
import { helpFor, usageFor } from "./usage.ts";

/** Runs one command to its end. */
export async function runCommand(argv: readonly string[]): Promise<void> {
  const asked = parseCommand(argv);
  if (asked.kind === "help") {
    process.stdout.write(helpFor(argv));
  } else if (asked.kind === "usage-error") {
    process.stderr.write(`authbridge-proxy: ${asked.message}\n\n${usageFor(argv)}`);
    process.exitCode = 2;
  } else {
    const { load, exits } = commands[asked.kind];
    const run = await load();
    process.exitCode = await run(asked);
    if (exits === true) process.exit();
  }
}
