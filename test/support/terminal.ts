/** A program in a terminal of its own, as it is under a shell: Python makes the pseudo-terminal. */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { eventually } from "./eventually.ts";

const inTerminal =
  "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

/** Whether there is a terminal to be had. */
export const hasTerminal = spawnSync("python3", ["-c", "import pty; pty.openpty()"]).status === 0;

/** One terminal, from the program's start to its end. */
export class Terminal {
  readonly #process: ChildProcess;
  /** Its exit code. */
  readonly ended: Promise<number | null>;
  #text = "";
  /** Where the text begins that was not waited for. */
  #from = 0;

  constructor(command: readonly string[], env: Readonly<Record<string, string>> = {}) {
    const child = spawn("python3", ["-c", inTerminal, ...command], {
      env: { PATH: process.env["PATH"] ?? "", TERM: "xterm", ...env },
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#process = child;
    child.stdout.on("data", (bytes: Buffer) => (this.#text += bytes.toString("latin1")));
    child.stdin.on("error", () => undefined);
    this.ended = new Promise((resolve) => child.once("close", resolve));
  }

  /** Everything that was written to it, control sequences included. */
  get text(): string {
    return this.#text;
  }

  /** Presses keys. */
  type(keys: string): void {
    this.#process.stdin?.write(keys, "latin1");
  }

  /** Waits for text after the place that was waited for before. */
  async seen(wanted: RegExp): Promise<RegExpExecArray> {
    const found = await eventually(() => wanted.exec(this.#text.slice(this.#from)) ?? false).catch(
      (error: unknown) => {
        throw new Error(`${String(wanted)} in ${JSON.stringify(this.#text)}`, { cause: error });
      },
    );
    this.#from += found.index + found[0].length;
    return found;
  }

  close(): Promise<void> {
    this.#process.stdin?.end();
    this.#process.kill("SIGKILL");
    return Promise.resolve();
  }
}
