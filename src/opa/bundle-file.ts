/** A bundle on disk, an archive or a folder, read again when it changes; the last good one stays in use. */
import { readdirSync, readFileSync, type Stats, statSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../errors.ts";
import { isDirectory, Looks, stampOf } from "../files/watched-file.ts";
import {
  type BundleFiles,
  maxArchiveBytes,
  maxContentBytes,
  readBundle,
  unpackBundle,
} from "./bundle.ts";
import type {
  DecisionEngine,
  DecisionPath,
  Evaluation,
  PolicyObserver,
} from "./decision-engine.ts";
import { WasmEngine } from "./wasm-engine.ts";
import { compilePolicy, type WasmPolicy } from "./wasm-policy.ts";

/** Options of a local bundle. */
export interface BundleFileOptions {
  readonly path: string;
  readonly timeoutMs: number;
  readonly observer: PolicyObserver;
  /** Milliseconds since the epoch. */
  now(): number;
}

const maxFolderFiles = 1_000;
const maxDepth = 8;
/** What a folder is read for; Rego source is only noticed. */
const relevant =
  /^(?:policy\.wasm|data\.(?:json|ya?ml)|\.manifest|\.signatures\.json|patch\.json)$|\.(?:wasm|rego)$/;

/** Looks when it is asked and has no timer: an idle process does nothing. */
export class BundleFile implements DecisionEngine {
  readonly #options: BundleFileOptions;
  readonly #engine: WasmEngine;
  readonly #looks: Looks;
  #stamp: string;
  #problem: string | undefined;
  #loading: Promise<void>;

  /** Throws an Error when there is no usable policy at the path. */
  constructor(options: BundleFileOptions) {
    this.#options = options;
    this.#engine = new WasmEngine(options.timeoutMs, options.observer);
    this.#looks = new Looks(() => options.now());
    this.#looks.isDue();
    const { stamp, policy } = readPolicy(options.path);
    this.#stamp = stamp;
    this.#loading = this.#activate(policy);
  }

  async evaluate(path: DecisionPath, input: string): Promise<Evaluation> {
    this.#look();
    // The first policy is on its way; a later one is used once it is there.
    if (this.#engine.ready() !== true) await this.#loading;
    return this.#engine.evaluate(path, input);
  }

  ready(): true | string {
    this.#look();
    return this.#engine.ready();
  }

  /** Resolves when what was found last is in use, or known not to be usable. */
  settled(): Promise<void> {
    return this.#loading;
  }

  close(): void {
    this.#engine.close();
  }

  #look(): void {
    if (!this.#looks.isDue()) return;
    try {
      if (bundleStamp(this.#options.path) === this.#stamp) return;
      const { stamp, policy } = readPolicy(this.#options.path);
      this.#stamp = stamp;
      this.#loading = this.#loading.then(() => this.#activate(policy));
    } catch (error) {
      this.#fail(messageOf(error));
    }
  }

  async #activate(policy: WasmPolicy): Promise<void> {
    try {
      await this.#engine.activate(policy, this.#options.path);
      this.#problem = undefined;
    } catch (error) {
      this.#fail(`${this.#options.path}: ${messageOf(error)}`);
    }
  }

  #fail(problem: string): void {
    if (problem === this.#problem) return;
    this.#problem = problem;
    this.#engine.problem = problem;
    this.#options.observer.onProblem(problem);
  }
}

interface Read {
  readonly stamp: string;
  readonly policy: WasmPolicy;
}

function readPolicy(path: string): Read {
  try {
    const stamp = bundleStamp(path);
    const files = isDirectory(path) ? readFolder(path) : unpackBundle(readArchive(path));
    // A folder is written file by file.
    if (bundleStamp(path) !== stamp) throw new Error("it changed while it was read");
    return { stamp, policy: compilePolicy(readBundle(files)) };
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
    const why = isMissing ? "there is no bundle at this path" : messageOf(error);
    throw new Error(`${path}: ${why}`, { cause: error });
  }
}

function readArchive(path: string): Buffer {
  const stat = statSync(path);
  // A pipe or a device would block the process.
  if (!stat.isFile()) throw new Error("it is not a regular file");
  if (stat.size > maxArchiveBytes) throw new Error(`it is larger than ${maxArchiveBytes} bytes`);
  return readFileSync(path);
}

function readFolder(root: string): BundleFiles {
  const files = new Map<string, Buffer>();
  let size = 0;
  for (const [name, stat] of folderFiles(root)) {
    size += stat.size;
    if (size > maxContentBytes) throw new Error(`it holds more than ${maxContentBytes} bytes`);
    files.set(name, name.endsWith(".rego") ? Buffer.alloc(0) : readFileSync(join(root, name)));
  }
  return files;
}

/** The files of a bundle below a folder, links followed, by their relative names. */
function folderFiles(root: string): [string, Stats][] {
  const found: [string, Stats][] = [];
  const walk = (folder: string, depth: number): void => {
    if (depth > maxDepth) throw new Error(`it is nested deeper than ${maxDepth} folders`);
    for (const name of readdirSync(join(root, folder)).sort()) {
      // "..data" and its versions are how Kubernetes swaps a volume; the names beside them link into it.
      if (name.startsWith("..")) continue;
      const inner = folder === "" ? name : `${folder}/${name}`;
      const stat = statSync(join(root, inner));
      if (stat.isDirectory()) walk(inner, depth + 1);
      else if (stat.isFile() && relevant.test(name)) found.push([inner, stat]);
      if (found.length > maxFolderFiles)
        throw new Error(`it has more than ${maxFolderFiles} files`);
    }
  };
  walk("", 0);
  return found;
}

/** Changes whenever a file does, comes or goes. */
function bundleStamp(path: string): string {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stampOf(stat);
  return folderFiles(path)
    .map(([name, each]) => `${name}:${stampOf(each)}`)
    .join("|");
}
