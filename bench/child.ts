/** A child process of the benchmark: started, awaited, measured through /proc, and stopped. */
import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { createInterface } from "node:readline";

const READY_TIMEOUT_MS = 15_000;
const STOP_TIMEOUT_MS = 5_000;
const STDERR_TAIL_BYTES = 4_096;

/** Which side of the machine a process runs on: the measured proxy alone, everything else together. */
export type Side = "proxy" | "bench";

function found(program: string): boolean {
  try {
    execFileSync("sh", ["-c", `command -v ${program}`], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

const canPin = process.platform === "linux" && availableParallelism() > 1 && found("taskset");

/** What the processes were pinned to, for the report. */
export const pinning = canPin ? "proxy on core 0, origin and load on core 1" : "not pinned";

/** True where a program is on PATH. */
export const onPath = found;

export interface Usage {
  readonly cpuMs: number;
  readonly rssBytes: number;
}

const TICK_MS = 1000 / Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }));
const PAGE_BYTES = Number(execFileSync("getconf", ["PAGESIZE"], { encoding: "utf8" }));

/** The fields of /proc/PID/stat after the command name, which may itself hold spaces. */
function statFields(pid: string): readonly string[] {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  return text.slice(text.lastIndexOf(")") + 2).split(" ");
}

/** User and system time (all threads) and resident memory of a process and its descendants. */
function usageOf(root: number): Usage {
  const rows = new Map<string, { parent: string; ticks: number; pages: number }>();
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) {
      continue;
    }
    try {
      const fields = statFields(pid);
      const [parent = "0"] = fields.slice(1);
      rows.set(pid, {
        parent,
        ticks: Number(fields[11]) + Number(fields[12]),
        pages: Number(fields[21]),
      });
    } catch {
      // The process ended between the listing and the reading.
    }
  }
  let ticks = 0;
  let pages = 0;
  for (const [pid, row] of rows) {
    let at: string | undefined = pid;
    while (at !== undefined && at !== String(root)) {
      at = rows.get(at)?.parent;
    }
    if (at !== undefined) {
      ticks += row.ticks;
      pages += row.pages;
    }
  }
  return { cpuMs: ticks * TICK_MS, rssBytes: pages * PAGE_BYTES };
}

export class Child {
  readonly #process: ChildProcess;
  readonly #waiting: ((line: string) => void)[] = [];
  readonly #lines: string[] = [];
  readonly #stderrFile: string;
  #exited: string | undefined;

  /** `stderrFile` takes what the child logs: a file, so that reading it costs the harness nothing. */
  constructor(
    side: Side,
    stderrFile: string,
    program: string,
    argv: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ) {
    const pin = canPin ? ["taskset", "-c", side === "proxy" ? "0" : "1"] : [];
    const [command = program, ...rest] = [...pin, program, ...argv];
    this.#stderrFile = stderrFile;
    const stderr = openSync(stderrFile, "a");
    this.#process = spawn(command, rest, {
      stdio: ["pipe", "pipe", stderr],
      env: { ...process.env, ...env },
    });
    closeSync(stderr);
    this.#process.on("error", (error) => this.#fail(error.message));
    this.#process.on("exit", (code, signal) => this.#fail(`exit ${code ?? signal}`));
    this.#process.stdin?.on("error", () => undefined);
    if (this.#process.stdout !== null) {
      createInterface({ input: this.#process.stdout }).on("line", (line) => {
        const next = this.#waiting.shift();
        if (next === undefined) {
          this.#lines.push(line);
          this.#lines.splice(0, this.#lines.length - 100);
        } else {
          next(line);
        }
      });
    }
  }

  get exited(): string | undefined {
    return this.#exited;
  }

  /** The end of what it wrote to stderr. */
  get stderr(): string {
    const size = statSync(this.#stderrFile).size;
    const tail = Buffer.alloc(Math.min(size, STDERR_TAIL_BYTES));
    const file = openSync(this.#stderrFile, "r");
    readSync(file, tail, 0, tail.length, size - tail.length);
    closeSync(file);
    return tail.toString().trim();
  }

  #fail(reason: string): void {
    this.#exited ??= reason;
    for (const next of this.#waiting.splice(0)) {
      next("");
    }
  }

  /** The next line of its stdout. */
  async line(timeoutMs: number): Promise<string> {
    const first = this.#lines.shift();
    if (first !== undefined) {
      return first;
    }
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("no answer in time")), timeoutMs);
      this.#waiting.push((line) => {
        clearTimeout(timer);
        if (this.#exited === undefined) {
          resolve(line);
        } else {
          reject(new Error(`${this.#exited}: ${this.stderr.slice(-400)}`));
        }
      });
    });
  }

  /** The ports that a child of this benchmark announces. */
  async ports(): Promise<Readonly<Record<string, number>>> {
    for (;;) {
      const line = await this.line(READY_TIMEOUT_MS);
      if (line.startsWith('{"ready":true')) {
        return (JSON.parse(line) as { ports: Record<string, number> }).ports;
      }
    }
  }

  /** Sends one JSON line and reads one back. */
  async ask<Answer>(command: unknown, timeoutMs: number): Promise<Answer> {
    this.#process.stdin?.write(`${JSON.stringify(command)}\n`);
    return JSON.parse(await this.line(timeoutMs)) as Answer;
  }

  usage(): Usage {
    return usageOf(this.#process.pid ?? -1);
  }

  async stop(): Promise<void> {
    if (this.#exited !== undefined) {
      return;
    }
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => this.#process.kill("SIGKILL"), STOP_TIMEOUT_MS);
      this.#process.once("exit", () => {
        clearTimeout(timer);
        resolve();
      });
      this.#process.kill("SIGTERM");
    });
  }
}
