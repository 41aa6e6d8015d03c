/** What becomes of a command whose standard output or standard error is gone before it is done. */
import { whyUnusable } from "../files/given-file.ts";

/**
 * Nothing of it ends a command: its exit code tells what it found, and what it made is tidied away. `| head` has seen
 * enough; what could not be written for another reason is no success.
 */
export function outliveStreams(): void {
  // Nobody is left to be told.
  process.stderr.on("error", () => undefined);
  process.stdout.on("error", (error) => {
    if ("code" in error && error.code === "EPIPE") return;
    process.stderr.write(
      `authbridge-proxy: standard output cannot be written: ${whyUnusable(error)}\n`,
    );
    process.on("exit", (code) => {
      if (code === 0) process.exitCode = 1;
    });
  });
}

/** Prints a piece of something long; false where nobody reads it. */
export async function print(text: string): Promise<boolean> {
  const output = process.stdout;
  if (!output.destroyed && !output.write(text)) await printed();
  return !output.destroyed;
}

/** Resolves once everything that was printed is written, or cannot be. */
export async function printed(): Promise<void> {
  await new Promise<void>((resolve) => process.stdout.write("", () => resolve()));
}
