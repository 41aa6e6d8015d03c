/** The process that has the terminal, from outside. */
import { type ChildProcess, spawn } from "node:child_process";
import type { FromPrompt, ToPrompt } from "./prompt-messages.ts";

const promptFile = new URL(
  import.meta.url.endsWith(".ts") ? "./prompt.ts" : "./prompt.js",
  import.meta.url,
).pathname;

const startTimeoutMs = 10_000;
const endTimeoutMs = 2_000;

/** One taking of the terminal. */
export class PromptProcess {
  readonly #process: ChildProcess;
  #hear: ((line: string | undefined) => void) | undefined;
  #hasEnded = false;

  /** Rejects where the terminal cannot be had. `stopped` goes on without us, should we be gone. */
  static start(tty: number, stopped: readonly number[]): Promise<PromptProcess> {
    const child = spawn(process.execPath, [promptFile], {
      stdio: [tty, tty, "ignore", "ipc"],
      // A session of its own.
      detached: true,
      env: {},
    });
    return new Promise((resolve, reject) => {
      const limit = setTimeout(() => child.kill("SIGTERM"), startTimeoutMs);
      const prompt = new PromptProcess(child);
      child.once("error", reject);
      child.once("exit", () => reject(new Error("the process for it has ended")));
      child.once("message", () => {
        clearTimeout(limit);
        resolve(prompt);
      });
      prompt.#send({ kind: "begin", stopped });
    });
  }

  private constructor(child: ChildProcess) {
    this.#process = child;
    child.on("message", (message: FromPrompt) => {
      if (message.kind === "typed") this.#hear?.(message.line);
    });
    child.on("exit", () => {
      this.#hasEnded = true;
      this.#hear?.(undefined);
    });
  }

  /** Shows a text and resolves with the line that is typed after it; undefined where there is no terminal any more. */
  ask(text: string): Promise<string | undefined> {
    if (this.#hasEnded) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      this.#hear = resolve;
      this.#send({ kind: "show", text });
    });
  }

  /** Resolves once the terminal is as it was. */
  async end(text = ""): Promise<void> {
    this.#send({ kind: "end", text });
    await this.close();
  }

  /** The same, for one that may not respond. */
  async close(): Promise<void> {
    if (this.#hasEnded) return;
    const child = this.#process;
    await new Promise<void>((resolve) => {
      // On this signal the terminal is given back as well.
      const term = setTimeout(() => child.kill("SIGTERM"), endTimeoutMs);
      const kill = setTimeout(() => child.kill("SIGKILL"), 2 * endTimeoutMs);
      child.once("exit", () => {
        clearTimeout(term);
        clearTimeout(kill);
        resolve();
      });
    });
  }

  #send(message: ToPrompt): void {
    if (this.#process.connected) this.#process.send(message, () => undefined);
  }
}
