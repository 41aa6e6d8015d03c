/** Programs that run in a host of a test network: its services, and the proxy. */
import { chmod, chown, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { eventually } from "./eventually.ts";
import type { Host } from "./network.ts";
import type { Seen, Services } from "./network-server.ts";

const serverProgram = fileURLToPath(new URL("network-server.ts", import.meta.url));
const proxyProgram = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

/** The user that the capture exempts, and the agent's. */
export const proxyUid = 1337;
export const agentUid = 1000;

/** A line of the proxy's log. */
export type LogLine = Readonly<Record<string, unknown>>;

/** Gives the JSON lines of a stream to `hear` as they come. */
function linesOf(stream: Readable | null, hear: (line: unknown) => void): void {
  if (stream === null) return;
  createInterface({ input: stream }).on("line", (line) => {
    if (line.startsWith("{")) hear(JSON.parse(line));
  });
}

/** Starts services in a host; what they see grows while they run. */
export async function serveIn(host: Host, services: Services): Promise<Seen[]> {
  const seen: Seen[] = [];
  const child = host.start([process.execPath, serverProgram, JSON.stringify(services)]);
  linesOf(child.stdout, (line) => seen.push(line as Seen));
  let stderr = "";
  child.stderr?.on("data", (chunk) => (stderr += String(chunk)));
  await eventually(() => {
    if (child.exitCode !== null) throw new Error(`the services ended: ${stderr}`);
    return seen.some(({ kind }) => kind === "ready");
  });
  return seen;
}

/** A proxy that runs in a host. */
export interface HostedProxy {
  readonly logs: readonly LogLine[];
  readonly directory: string;
  /** Waits for a line. */
  log(predicate: (line: LogLine) => boolean): Promise<LogLine>;
  /** Ends the process at once, as the kernel would. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

/** How it is started. */
export interface HostedProxyOptions {
  readonly uid?: number;
  readonly capabilities?: readonly string[];
  readonly files?: Readonly<Record<string, string>>;
}

/** Starts the program as the proxy's user; `DIRECTORY` in the configuration stands for its own directory. */
export async function proxyIn(
  host: Host,
  config: unknown,
  { uid = proxyUid, capabilities = [], files = {} }: HostedProxyOptions = {},
): Promise<HostedProxy> {
  const directory = await mkdtemp(join(tmpdir(), "authbridge-network-"));
  await chown(directory, uid, uid);
  // The agent reads the certificate that it is to trust.
  await chmod(directory, 0o755);
  const text = stringify(config).replaceAll("DIRECTORY", directory);
  for (const [name, body] of Object.entries({ "proxy.yaml": text, ...files })) {
    await writeFile(join(directory, name), body);
    await chown(join(directory, name), uid, uid);
  }
  const command = [process.execPath, proxyProgram, "--config", join(directory, "proxy.yaml")];
  // The checkout may be in a place that only root can read.
  const child = host.start(command, { uid, capabilities: ["dac_read_search", ...capabilities] });
  const logs: LogLine[] = [];
  linesOf(child.stderr, (line) => logs.push(line as LogLine));
  const ended = new Promise<void>((resolve) => {
    child.once("close", () => resolve());
  });
  const proxy = {
    logs,
    directory,
    log: (predicate: (line: LogLine) => boolean) => eventually(() => logs.find(predicate) ?? false),
    kill: () => {
      child.kill("SIGKILL");
      return ended;
    },
    stop: async () => {
      child.kill("SIGKILL");
      await ended;
      await rm(directory, { recursive: true, force: true });
    },
  };
  await eventually(() => {
    if (child.exitCode !== null) throw new Error(`the proxy ended: ${JSON.stringify(logs)}`);
    return logs.some(({ msg }) => msg === "serving");
  }, 20_000);
  return proxy;
}
