/** `tail` as a child process. */
import { spawn } from "node:child_process";
import type { Closable } from "./owner.ts";
import { mainFile } from "./program.ts";

/** A `tail` that runs. */
export interface Tail extends Closable {
  readonly out: () => string;
  readonly err: () => string;
}

/** Starts one. */
export function startTail(...args: string[]): Tail {
  const child = spawn(process.execPath, [mainFile, "tail", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    // A shell whose programs are to use a proxy: the session API is not asked through it.
    env: {
      ...process.env,
      NODE_USE_ENV_PROXY: "1",
      HTTP_PROXY: "http://127.0.0.1:9",
      NO_PROXY: "",
    },
  });
  let [out, err] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  return { out: () => out, err: () => err, close: () => void child.kill("SIGKILL") };
}
