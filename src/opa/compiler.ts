/** Compiles Rego with the operator's own `opa` program: no shell, a private folder, bounded time and memory. */
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { messageOf } from "../errors.ts";
import type { BundleFiles } from "./bundle.ts";
import { decisionPaths } from "./decision-engine.ts";

/** Bounds of a {@link RegoCompiler}. */
export interface CompilerOptions {
  /** Absolute path of the program. */
  readonly program: string;
  /** Of one run. */
  readonly timeoutMs?: number;
  /** Resident memory of one run. */
  readonly maxMemoryBytes?: number;
}

const defaultTimeoutMs = 30_000;
const defaultMemoryBytes = 1_024 * 1_024 * 1_024;
const memoryLookMs = 50;
const maxOutputBytes = 16_384;
const pageBytes = 4_096;
const outputName = "bundle.tar.gz";
const sourceName = "source";
/** What a compiler reads of a bundle. */
const compiled = /(?:^|\/)(?:[^/]*\.rego|data\.(?:json|ya?ml)|\.manifest)$/;
const noSuchRule = /entrypoint "([^"]+)" does not refer to a rule/;

/** What a run left behind. */
interface Run {
  readonly code: number | null;
  readonly output: string;
  /** Why it was ended. */
  readonly ended: string | undefined;
}

/** One program, which is run for every new policy. */
export class RegoCompiler {
  readonly #program: string;
  readonly #timeoutMs: number;
  readonly #maxMemoryBytes: number;

  constructor(options: CompilerOptions) {
    this.#program = options.program;
    this.#timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
    this.#maxMemoryBytes = options.maxMemoryBytes ?? defaultMemoryBytes;
  }

  /** The archive of the compiled bundle, with those documents that the policy defines. */
  async compile(files: BundleFiles, revision: string, signal: AbortSignal): Promise<Buffer> {
    // Only this user can look into it.
    const folder = await mkdtemp(join(tmpdir(), "authbridge-rego-"));
    try {
      await writeSource(join(folder, sourceName), files);
      await this.#build(folder, revision, signal);
      return await readFile(join(folder, outputName));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  /** A document that the policy does not define is no entrypoint; the program says which one. */
  async #build(folder: string, revision: string, signal: AbortSignal): Promise<void> {
    let paths: readonly string[] = decisionPaths;
    for (;;) {
      const { code, output, ended } = await this.#run(
        folder,
        [
          "build",
          "--target=wasm",
          `--output=${outputName}`,
          "--bundle",
          sourceName,
          ...(revision === "" ? [] : [`--revision=${revision}`]),
          ...paths.flatMap((path) => ["--entrypoint", path]),
        ],
        signal,
      );
      if (ended !== undefined) throw new Error(`${this.#program} was ended: ${ended}`);
      if (code === 0) return;
      const undefinedPath = noSuchRule.exec(output)?.[1];
      const left = paths.filter((path) => path !== undefinedPath);
      if (left.length === paths.length) {
        const said = output.replaceAll(`${folder}/`, "").trim().split("\n").slice(0, 3).join("; ");
        throw new Error(`the policy cannot be compiled: ${said.slice(0, 1_024)}`);
      }
      if (left.length === 0) {
        throw new Error(`the policy defines none of the documents ${decisionPaths.join(", ")}`);
      }
      paths = left;
    }
  }

  #run(folder: string, given: readonly string[], signal: AbortSignal): Promise<Run> {
    return new Promise((resolve, reject) => {
      const child = spawn(this.#program, given, {
        cwd: folder,
        // Nothing of this process's environment: it may hold secrets.
        env: {
          HOME: folder,
          TMPDIR: folder,
          GOMAXPROCS: "1",
          GOMEMLIMIT: String(Math.floor(this.#maxMemoryBytes / 2)),
        },
        stdio: ["ignore", "pipe", "pipe"],
        shell: false,
        signal,
        killSignal: "SIGKILL",
      });
      let ended: string | undefined;
      let output = "";
      const end = (why: string): void => {
        ended ??= why;
        child.kill("SIGKILL");
      };
      let deadline: NodeJS.Timeout | undefined;
      let look: NodeJS.Timeout | undefined;
      const stop = (): void => {
        clearTimeout(deadline);
        clearInterval(look);
      };
      child.once("error", (error) => {
        stop();
        reject(new Error(`${this.#program} cannot be run: ${messageOf(error)}`, { cause: error }));
      });
      // There is no process, and where descriptors are used up there are no pipes either: the error is on its way.
      if (child.pid === undefined) return;
      deadline = setTimeout(() => {
        end(`it took longer than ${this.#timeoutMs} ms`);
      }, this.#timeoutMs);
      look = setInterval(() => {
        void residentBytes(child.pid).then((bytes) => {
          if (bytes > this.#maxMemoryBytes) end(`it took more than ${this.#maxMemoryBytes} bytes`);
        });
      }, memoryLookMs);
      for (const stream of [child.stdout, child.stderr]) {
        stream.on("data", (bytes: Buffer) => {
          if (output.length < maxOutputBytes) output += bytes.toString("utf8");
        });
      }
      child.once("close", (code) => {
        stop();
        resolve({ code, output, ended });
      });
    });
  }
}

async function writeSource(folder: string, files: BundleFiles): Promise<void> {
  await mkdir(folder, { mode: 0o700 });
  for (const [name, bytes] of files) {
    if (!compiled.test(name)) continue;
    const path = join(folder, name);
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await writeFile(path, bytes, { mode: 0o600, flag: "wx" });
  }
}

/** Of a process that has ended: nothing. */
async function residentBytes(pid: number | undefined): Promise<number> {
  try {
    const text = await readFile(`/proc/${pid}/statm`, "latin1");
    return Number(text.split(" ")[1]) * pageBytes;
  } catch {
    return 0;
  }
}
