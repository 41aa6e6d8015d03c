/** What a command line asks for, from its arguments to the exit code: 0 success, 1 failure while running, 2 bad usage or file. */
import { ProxyError } from "../../errors.ts";
import { outliveStreams, printed } from "../standard-streams.ts";
import { parseCommand } from "./command-line.ts";
import { commands } from "./commands.ts";
import { helpFor, usageFor } from "./usage.ts";

/** Runs one command to its end. */
export async function runCommand(argv: readonly string[]): Promise<void> {
  outliveStreams();
  const asked = parseCommand(argv);
  if (asked.kind === "help") {
    process.stdout.write(helpFor(argv));
  } else if (asked.kind === "usage-error") {
    process.stderr.write(`authbridge-proxy: ${asked.message}\n\n${usageFor(argv)}`);
    process.exitCode = 2;
  } else {
    const { load, exits } = commands[asked.kind];
    const run = await load();
    process.exitCode = await Promise.resolve(asked).then(run).catch(refuseOutside);
    await printed();
    if (exits === true) process.exit();
  }
}

/** What the system or the surroundings do not allow is said in words; the rest is a bug, and its trace helps to find it. */
async function refuseOutside(error: unknown): Promise<number> {
  const isOutside = error instanceof ProxyError || (error instanceof Error && "syscall" in error);
  if (!isOutside) throw error;
  const { refuseCommand } = await import("../config-file.ts");
  return refuseCommand(error);
}
