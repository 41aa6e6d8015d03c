/** Runs the program as an operator does: a file, a process, addresses from its log, signals, an exit code. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { eventually, patience, within } from "./eventually.ts";
import { get, type Address, type RawResponse } from "./http-client.ts";

/** A configuration in terms of the file: nested maps. */
export type Settings = { readonly [key: string]: unknown };

/** A line of the log. */
export type LogLine = Readonly<Record<string, unknown>> & { readonly msg: string };

/** How a process ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What to give to a process besides its file. */
export interface ProcessOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Files to put beside the configuration, by name. */
  readonly files?: Readonly<Record<string, string>>;
  /** Further arguments. */
  readonly args?: readonly string[];
  /** The node that runs it, in place of the one that runs the tests. */
  readonly node?: string;
}

/** A process and the directory that its file is in. */
export interface Launched {
  readonly child: ChildProcess;
  readonly directory: string;
}

/** The program from its sources, or another one, such as `AUTHBRIDGE_MAIN=$PWD/dist/main.js`. */
export const mainFile =
  process.env["AUTHBRIDGE_MAIN"] ?? fileURLToPath(new URL("../../src/main.ts", import.meta.url));

/** How many threads serve the files that do not say so: AUTHBRIDGE_TEST_WORKERS=2 is the second pass of the journeys. */
export const testThreads = Number(process.env["AUTHBRIDGE_TEST_WORKERS"] ?? 1);

/** The file of a test that has a meaning for one thread only, and why. */
export function oneThread(_why: string, config: Settings): Settings {
  return { ...config, workers: 1 };
}

/** The file as it is written. */
function served(config: Settings | string): Settings | string {
  if (testThreads === 1) return config;
  if (typeof config === "string") {
    // Behind everything else: places in the file stay what they are.
    const isOpen = /^[a-z_]+:/m.test(config) && !/^workers:/m.test(config);
    return isOpen ? `${config.trimEnd()}\nworkers: ${testThreads}\n` : config;
  }
  if (config["workers"] !== undefined) return config;
  return { ...config, workers: testThreads };
}

/** The text of a configuration file. */
export function toYaml(config: Settings | string): string {
  const file = served(config);
  return typeof file === "string" ? file : stringify(file);
}

/** Starts the program with its file in a fresh directory; it may well refuse it. */
export async function launch(
  config: Settings | string,
  { files = {}, env = {}, args = [], node }: ProcessOptions = {},
): Promise<Launched> {
  const directory = await makeDirectory(config, files);
  const child = spawnProgram(
    ["--config", join(directory, "proxy.yaml"), ...args],
    directory,
    env,
    node,
  );
  return { child, directory };
}

/** Runs the program with arguments until it ends. */
export async function runProgram(
  args: readonly string[],
  options: ProcessOptions & { readonly cwd?: string } = {},
): Promise<Ended> {
  const directory = options.cwd ?? tmpdir();
  const running = new Program({ child: spawnProgram(args, directory, options.env), directory });
  try {
    return await within("the process ends", running.ended, 25_000);
  } finally {
    running.signal("SIGKILL");
  }
}

/** Runs `authbridge-proxy [check|doctor] --config FILE` with this configuration until it ends. */
export async function runWith(
  command: "check" | "doctor" | "run",
  config: Settings | string,
  options: ProcessOptions = {},
): Promise<Ended> {
  const directory = await makeDirectory(config, options.files ?? {});
  try {
    const verb = command === "run" ? [] : [command];
    return await runProgram([...verb, "--config", "proxy.yaml", ...(options.args ?? [])], {
      ...options,
      cwd: directory,
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** A fresh directory with the configuration and other files. */
export async function makeDirectory(
  config: Settings | string,
  files: Readonly<Record<string, string>>,
): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "authbridge-test-"));
  await writeFile(join(directory, "proxy.yaml"), toYaml(config));
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
  return directory;
}

/** Nothing of a proxy or of trust comes from outside. */
function spawnProgram(
  args: readonly string[],
  cwd: string,
  env: Readonly<Record<string, string>> = {},
  node = process.execPath,
): ChildProcess {
  return spawn(node, [mainFile, ...args], {
    cwd,
    env: {
      PATH: process.env["PATH"] ?? "",
      HOME: cwd,
      NODE_ENV: "test",
      // Shared by all of them: HOME has none.
      NODE_COMPILE_CACHE: join(tmpdir(), "node-compile-cache"),
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** Sum of the samples of /metrics that have this name and these labels. */
export function sumOf(
  text: string,
  name: string | RegExp,
  labels: Readonly<Record<string, string>> = {},
): number {
  const pattern = typeof name === "string" ? new RegExp(`^${name}[ {]`) : name;
  const wanted = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
  return text
    .split("\n")
    .filter((line) => !line.startsWith("#") && pattern.test(line))
    .filter((line) => wanted.every((label) => line.includes(label)))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}

/** A proxy that serves, in a process of its own or in that of the test. */
export abstract class RunningProxy {
  readonly logs: LogLine[] = [];
  protected addresses: Readonly<Record<string, Address>> = {};

  /** Where one of the surfaces listens. */
  address(name: string): Address {
    const address = this.addresses[name];
    if (address === undefined) {
      throw new Error(`${name} is not bound: ${JSON.stringify(this.addresses)}`);
    }
    return address;
  }

  /** Names of what is bound. */
  get surfaces(): string[] {
    return Object.keys(this.addresses);
  }

  get forward(): Address {
    return this.address("forward");
  }

  get reverse(): Address {
    return this.address("reverse");
  }

  /** The operator's surfaces on loopback serve loopback names only (DNS rebinding). */
  #operator(name: string, path: string): Promise<RawResponse> {
    const address = this.address(name);
    return get(address, path, { Host: `${address.host}:${address.port}`, Connection: "close" });
  }

  /** GET on the health listener. */
  health(path: string): Promise<RawResponse> {
    return this.#operator("health", path);
  }

  /** GET on the stats listener. */
  stats(path: string): Promise<RawResponse> {
    return this.#operator("stats", path);
  }

  /** GET on the session API. */
  sessions(path: string): Promise<RawResponse> {
    return this.#operator("sessions", path);
  }

  /** The value of a sample of /metrics, summed over its labels that are not named. */
  async metric(
    name: string | RegExp,
    labels: Readonly<Record<string, string>> = {},
  ): Promise<number> {
    return sumOf((await this.stats("/metrics")).text, name, labels);
  }

  /** Waits for a log line. */
  log(predicate: (line: LogLine) => boolean): Promise<LogLine> {
    return eventually(() => this.logs.find(predicate) ?? false);
  }

  /** Lines that must never appear, whatever a stranger does. */
  get faults(): LogLine[] {
    const words = ["exchange fault", "plugin fault", "listener fault", "uncaught", "unhandled"];
    return this.logs.filter(({ msg }) => words.some((word) => msg.startsWith(word)));
  }

  /** Ends it at once. */
  abstract close(): Promise<void>;
}

/** The program while it runs. */
export class Program extends RunningProxy {
  readonly directory: string;
  readonly ended: Promise<Ended>;
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  #isAlive = true;

  constructor({ child, directory }: Launched) {
    super();
    this.#child = child;
    this.directory = directory;
    let stdout = "";
    child.stdout?.on("data", (chunk) => (stdout += String(chunk)));
    if (child.stderr !== null) {
      createInterface({ input: child.stderr }).on("line", (line) => {
        this.#lines.push(line);
        // SIGKILL may cut the last one short.
        if (/^\{.*\}$/.test(line)) this.logs.push(JSON.parse(line) as LogLine);
      });
    }
    this.ended = new Promise((resolve) => {
      child.once("close", (code, signal) => {
        this.#isAlive = false;
        resolve({ code, signal, stdout, stderr: this.stderr });
      });
    });
  }

  /** Waits until everything is bound. */
  async serving(): Promise<this> {
    try {
      const line = await eventually(
        () =>
          this.#isAlive ? (this.logs.find(({ msg }) => msg === "serving") ?? false) : undefined,
        25_000 * patience,
      );
      if (line === undefined) throw new Error(`the proxy ended before it served:\n${this.stderr}`);
      this.addresses = line["addresses"] as Readonly<Record<string, Address>>;
      return this;
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** True until the process ends. */
  get isAlive(): boolean {
    return this.#isAlive;
  }

  get stderr(): string {
    return this.#lines.join("\n");
  }

  /** Path of a file in the program's directory. */
  path(name: string): string {
    return join(this.directory, name);
  }

  /** JSON lines that a plugin has written to a file in the program's directory. */
  async records(name: string): Promise<Readonly<Record<string, unknown>>[]> {
    const text = await readFile(this.path(name), "utf8").catch(() => "");
    const lines = text.split("\n").filter((line) => line !== "");
    return lines.map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>);
  }

  /** Replaces the file in one step, as editors and operators do. */
  async rewriteConfig(config: Settings | string): Promise<void> {
    const next = this.path(".proxy.yaml.next");
    await writeFile(next, toYaml(config));
    await rename(next, this.path("proxy.yaml"));
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Ends the process as Kubernetes does and says how it ended. */
  async stop(): Promise<Ended> {
    this.signal("SIGTERM");
    return within("the proxy ends after SIGTERM", this.ended, 20_000 * patience);
  }

  /** Ends the process at once, as the kernel would. */
  async kill(): Promise<void> {
    if (this.#isAlive) this.signal("SIGKILL");
    await this.ended;
  }

  /** Ends the process at once and removes its directory. */
  async close(): Promise<void> {
    await this.kill();
    await rm(this.directory, { recursive: true, force: true });
  }
}
