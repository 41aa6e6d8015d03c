/** Runs the program as an operator does: a file, a process, addresses from its log, signals, an exit code. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { eventually, within } from "./eventually.ts";
import { get, type Address, type RawResponse } from "./http-client.ts";

/** A configuration in terms of the file: nested maps. */
export type Settings = { readonly [key: string]: unknown };

/** A line of the log. */
export type LogLine = Readonly<Record<string, unknown>>;

/** How a process ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

const program = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
/** The module with the plugins of the journey tests. */
export const journeyPlugins = fileURLToPath(new URL("journey-plugins.ts", import.meta.url));

const isMap = (value: unknown): value is Settings =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Merges maps key by key; anything else of `over` replaces what `under` has. */
export function merge(under: Settings, over: Settings): Settings {
  const merged: Record<string, unknown> = { ...under };
  for (const [key, value] of Object.entries(over)) {
    const base = merged[key];
    merged[key] = isMap(base) && isMap(value) ? merge(base, value) : value;
  }
  return merged;
}

/** A file whose listeners are all on free loopback ports and that may dial loopback; `over` is merged into it. */
export function settings(over: Settings = {}): Settings {
  const base = {
    listener: {
      forward_proxy_addr: "127.0.0.1:0",
      reverse_proxy_addr: "127.0.0.1:0",
      session_api_addr: "127.0.0.1:0",
      health_addr: "127.0.0.1:0",
      transparent_proxy_addr: "off",
    },
    stats: { address: "127.0.0.1:0" },
    egress: { allow_ips: ["127.0.0.0/8"] },
    reload: { debounce: "50ms" },
    plugin_modules: [journeyPlugins],
  };
  const merged = merge(base, over);
  const { listener } = merged;
  if (isMap(listener) && listener["roles"] === undefined) {
    const roles = listener["reverse_proxy_backend"] === undefined ? ["forward"] : undefined;
    if (roles !== undefined) return merge(merged, { listener: { roles } });
  }
  return merged;
}

/** The chain of one direction, with the wrapping that the file wants. */
export function outbound(...plugins: unknown[]): Settings {
  return { pipeline: { outbound: { plugins } } };
}

export function inbound(...plugins: unknown[]): Settings {
  return { pipeline: { inbound: { plugins } } };
}

/** The text of a configuration file. */
export function toYaml(config: Settings | string): string {
  return typeof config === "string" ? config : stringify(config);
}

function launch(
  args: readonly string[],
  cwd: string,
  env: Readonly<Record<string, string>>,
): ChildProcess {
  return spawn(process.execPath, [program, ...args], {
    cwd,
    env: {
      PATH: process.env["PATH"] ?? "",
      HOME: process.env["HOME"] ?? "",
      NODE_ENV: "test",
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** What to give to a process besides its file. */
export interface ProcessOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Files to put beside the configuration, by name. */
  readonly files?: Readonly<Record<string, string>>;
  /** Further arguments. */
  readonly args?: readonly string[];
}

/** Runs the program with arguments until it ends. */
export async function runProgram(
  args: readonly string[],
  options: ProcessOptions & { readonly cwd?: string } = {},
): Promise<Ended> {
  const child = launch(args, options.cwd ?? tmpdir(), options.env ?? {});
  return ended(child, collect(child));
}

/** Runs `authbridge-proxy [check] --config FILE` with this configuration until it ends. */
export async function runWith(
  command: "check" | "run",
  config: Settings | string,
  options: ProcessOptions = {},
): Promise<Ended> {
  const directory = await makeDirectory(config, options.files ?? {});
  try {
    const verb = command === "check" ? ["check"] : [];
    return await runProgram([...verb, "--config", "proxy.yaml", ...(options.args ?? [])], {
      ...options,
      cwd: directory,
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function makeDirectory(
  config: Settings | string,
  files: Readonly<Record<string, string>>,
): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "authbridge-journey-"));
  await writeFile(join(directory, "proxy.yaml"), toYaml(config));
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
  return directory;
}

interface Collected {
  stdout: string;
  readonly stderr: string[];
}

function collect(child: ChildProcess, onLine?: (line: string) => void): Collected {
  const collected: Collected = { stdout: "", stderr: [] };
  child.stdout?.on("data", (chunk) => (collected.stdout += String(chunk)));
  if (child.stderr !== null) {
    createInterface({ input: child.stderr }).on("line", (line) => {
      collected.stderr.push(line);
      onLine?.(line);
    });
  }
  return collected;
}

async function ended(child: ChildProcess, collected: Collected): Promise<Ended> {
  const end = new Promise<Ended>((resolve) => {
    child.once("close", (code, signal) => {
      const { stdout, stderr } = collected;
      resolve({ code, signal, stdout, stderr: stderr.join("\n") });
    });
  });
  try {
    return await within("the process ends", end, 25_000);
  } finally {
    child.kill("SIGKILL");
  }
}

/** A running proxy with its file in a directory of its own. */
export class ProxyProcess {
  readonly directory: string;
  readonly logs: LogLine[] = [];
  readonly ended: Promise<Ended>;
  #addresses: Readonly<Record<string, Address>> = {};
  #hasEnded = false;
  readonly #child: ChildProcess;
  readonly #collected: Collected;

  private constructor(child: ChildProcess, directory: string) {
    this.#child = child;
    this.directory = directory;
    this.#collected = collect(child, (line) => {
      if (line.startsWith("{")) this.logs.push(JSON.parse(line) as LogLine);
    });
    this.ended = new Promise((resolve) => {
      child.once("close", (code, signal) => {
        this.#hasEnded = true;
        const { stdout, stderr } = this.#collected;
        resolve({ code, signal, stdout, stderr: stderr.join("\n") });
      });
    });
  }

  /** Starts the program and waits until everything is bound. */
  static async start(
    config: Settings | string,
    options: ProcessOptions = {},
  ): Promise<ProxyProcess> {
    const directory = await makeDirectory(config, options.files ?? {});
    const args = ["--config", join(directory, "proxy.yaml"), ...(options.args ?? [])];
    const child = launch(args, directory, options.env ?? {});
    const proxy = new ProxyProcess(child, directory);
    const serving = eventually(() => {
      if (proxy.#hasEnded) return { addresses: undefined };
      const line = proxy.logs.find((log) => log["msg"] === "serving");
      return line === undefined ? false : { addresses: line["addresses"] };
    }, 25_000);
    const { addresses } = await serving;
    if (addresses === undefined) {
      await rm(directory, { recursive: true, force: true });
      throw new Error(`the proxy ended before it served:\n${(await proxy.ended).stderr}`);
    }
    proxy.#addresses = addresses as Readonly<Record<string, Address>>;
    return proxy;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get stderr(): string {
    return this.#collected.stderr.join("\n");
  }

  #address(name: string): Address {
    const address = this.#addresses[name];
    if (address === undefined) {
      throw new Error(`${name} is not bound: ${JSON.stringify(this.#addresses)}`);
    }
    return address;
  }

  /** The operator's surfaces on loopback serve loopback names only (DNS rebinding). */
  #operator(name: string, path: string): Promise<RawResponse> {
    const address = this.#address(name);
    return get(address, path, { Host: `${address.host}:${address.port}`, Connection: "close" });
  }

  /** Where one of the surfaces listens. */
  address(name: "health" | "stats" | "sessions"): Address {
    return this.#address(name);
  }

  /** Names of what is bound. */
  get surfaces(): string[] {
    return Object.keys(this.#addresses);
  }

  get forward(): Address {
    return this.#address("forward");
  }

  get reverse(): Address {
    return this.#address("reverse");
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
  async metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    const { text } = await this.stats("/metrics");
    let sum = 0;
    for (const line of text.split("\n")) {
      if (!line.startsWith(`${name}{`) && !line.startsWith(`${name} `)) continue;
      const wanted = Object.entries(labels).every(([key, value]) =>
        line.includes(`${key}="${value}"`),
      );
      if (wanted) sum += Number(line.slice(line.lastIndexOf(" ") + 1));
    }
    return sum;
  }

  /** Waits for a log line. */
  log(predicate: (line: LogLine) => boolean): Promise<LogLine> {
    return eventually(() => this.logs.find(predicate) ?? false);
  }

  /** Path of a file in the proxy's directory. */
  path(name: string): string {
    return join(this.directory, name);
  }

  /** JSON lines that a recording plugin has written to a file in the proxy's directory. */
  async records(name: string): Promise<LogLine[]> {
    const text = await readFile(this.path(name), "utf8").catch(() => "");
    const lines = text.split("\n").filter((line) => line !== "");
    return lines.map((line) => JSON.parse(line) as LogLine);
  }

  /** Replaces the file in one step, as editors and operators do. */
  async rewriteConfig(config: Settings | string): Promise<void> {
    const next = this.path(".proxy.yaml.next");
    await writeFile(next, toYaml(config));
    await rename(next, this.path("proxy.yaml"));
  }

  /** The answer of /reload/status. */
  async reloadStatus(): Promise<{
    readonly reloads_ok: number;
    readonly reloads_failed: number;
    readonly last_error: string;
    readonly active_config_sha256: string;
    readonly last_success: string;
    readonly last_attempt: string;
  }> {
    return JSON.parse((await this.stats("/reload/status")).text) as Awaited<
      ReturnType<ProxyProcess["reloadStatus"]>
    >;
  }

  /** Replaces the file and waits until it serves. */
  async reload(config: Settings | string): Promise<void> {
    const before = (await this.reloadStatus()).reloads_ok;
    await this.rewriteConfig(config);
    await eventually(async () => (await this.reloadStatus()).reloads_ok > before);
  }

  /** Replaces the file and waits until it was refused; the answer is why. */
  async refusedReload(config: Settings | string): Promise<string> {
    const before = (await this.reloadStatus()).reloads_failed;
    await this.rewriteConfig(config);
    return eventually(async () => {
      const status = await this.reloadStatus();
      return status.reloads_failed > before && status.last_error;
    });
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Ends the process as Kubernetes does and says how it ended. */
  async stop(): Promise<Ended> {
    this.signal("SIGTERM");
    return within("the proxy ends after SIGTERM", this.ended, 20_000);
  }

  /** Ends the process at once and removes its directory. */
  async close(): Promise<void> {
    if (!this.#hasEnded) this.#child.kill("SIGKILL");
    await this.ended;
    await rm(this.directory, { recursive: true, force: true });
  }
}
