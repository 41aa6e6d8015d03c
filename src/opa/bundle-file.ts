/** A bundle on disk, an archive or a folder, read again when it changes; the last good one stays in use. */
import { readdirSync, readFileSync, type Stats, statSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../errors.ts";
import { isDirectory, Looks, stampOf } from "../files/watched-file.ts";
import { type BundleFiles, maxArchiveBytes, maxContentBytes, unpackBundle } from "./bundle.ts";
import type {
  DecisionEngine,
  DecisionPath,
  Evaluation,
  PolicyObserver,
} from "./decision-engine.ts";
import { WasmEngine } from "./wasm-engine.ts";
import { type BundleRules, preparePolicy } from "./policy-source.ts";
import type { WasmPolicy } from "./wasm-policy.ts";

/** Options of a local bundle. */
export interface BundleFileOptions {
  readonly path: string;
  readonly rules: BundleRules;
  readonly timeoutMs: number;
  readonly observer: PolicyObserver;
  /** Milliseconds since the epoch. */
  now(): number;
}

const maxFolderFiles = 1_000;
const maxDepth = 8;
/** What a folder is read for where no signature says what else belongs to the bundle. */
const relevant =
  /^(?:policy\.wasm|data\.(?:json|ya?ml)|\.manifest|\.signatures\.json|patch\.json)$|\.(?:wasm|rego)$/;

/** Looks when it is asked and has no timer: an idle process does nothing. */
export class BundleFile implements DecisionEngine {
  readonly #options: BundleFileOptions;
  readonly #engine: WasmEngine;
  readonly #looks: Looks;
  readonly #closing = new AbortController();
  #stamp: string;
  #problem: string | undefined;
  #loading: Promise<void>;

  /** Throws an Error when there is no usable policy at the path. */
  constructor(options: BundleFileOptions) {
    this.#options = options;
    this.#engine = new WasmEngine(options.timeoutMs, options.observer);
    this.#looks = new Looks(() => options.now());
    this.#looks.isDue();
    const { stamp, policy } = readPolicy(options, this.#closing.signal);
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
    this.#closing.abort();
    this.#engine.close();
  }

  #look(): void {
    if (!this.#looks.isDue()) return;
    try {
      if (bundleStamp(this.#options) === this.#stamp) return;
      const { stamp, policy } = readPolicy(this.#options, this.#closing.signal);
      this.#stamp = stamp;
      // What was found before is activated before, however long it takes to compile.
      const before = this.#loading;
      this.#loading = Promise.allSettled([policy, before]).then(() => this.#activate(policy));
    } catch (error) {
      this.#fail(messageOf(error));
    }
  }

  async #activate(policy: WasmPolicy | Promise<WasmPolicy>): Promise<void> {
    try {
      await this.#engine.activate(await policy, this.#options.path);
      this.#problem = undefined;
    } catch (error) {
      this.#fail(`${this.#options.path}: ${messageOf(error)}`);
    }
  }

  #fail(problem: string): void {
    if (problem === this.#problem || this.#closing.signal.aborted) return;
    this.#problem = problem;
    this.#engine.problem = problem;
    this.#options.observer.onProblem(problem);
  }
}

interface Read {
  readonly stamp: string;
  readonly policy: WasmPolicy | Promise<WasmPolicy>;
}

type Place = Pick<BundleFileOptions, "path" | "rules">;

function readPolicy(place: Place, signal: AbortSignal): Read {
  const { path, rules } = place;
  try {
    const stamp = bundleStamp(place);
    const files = isDirectory(path) ? readFolder(place) : unpackBundle(readArchive(path));
    // A folder is written file by file.
    if (bundleStamp(place) !== stamp) throw new Error("it changed while it was read");
    return { stamp, policy: preparePolicy(files, rules, signal) };
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

function readFolder(place: Place): BundleFiles {
  const root = place.path;
  const files = new Map<string, Buffer>();
  let size = 0;
  for (const [name, stat] of folderFiles(place)) {
    size += stat.size;
    if (size > maxContentBytes) throw new Error(`it holds more than ${maxContentBytes} bytes`);
    files.set(name, readFileSync(join(root, name)));
  }
  return files;
}

/** The files of a bundle below a folder, links followed, by their relative names. */
function folderFiles({ path: root, rules }: Place): [string, Stats][] {
  const isSigned = rules.verification !== undefined;
  const found: [string, Stats][] = [];
  const walk = (folder: string, depth: number): void => {
    if (depth > maxDepth) throw new Error(`it is nested deeper than ${maxDepth} folders`);
    for (const name of readdirSync(join(root, folder)).sort()) {
      // "..data" and its versions are how Kubernetes swaps a volume; the names beside them link into it.
      if (name.startsWith("..")) continue;
      const inner = folder === "" ? name : `${folder}/${name}`;
      const stat = statSync(join(root, inner));
      if (stat.isDirectory()) walk(inner, depth + 1);
      else if (stat.isFile() && (isSigned || relevant.test(name))) found.push([inner, stat]);
      if (found.length > maxFolderFiles)
        throw new Error(`it has more than ${maxFolderFiles} files`);
    }
  };
  walk("", 0);
  return found;
}

/** Changes whenever a file does, comes or goes. */
function bundleStamp(place: Place): string {
  const stat = statSync(place.path);
  if (!stat.isDirectory()) return stampOf(stat);
  return folderFiles(place)
    .map(([name, each]) => `${name}:${stampOf(each)}`)
    .join("|");
}
