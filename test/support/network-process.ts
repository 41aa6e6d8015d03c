/** Programs that run in a host of a test network: its services, and the proxy. */
import { chmod, chown, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { eventually } from "./eventually.ts";
import { mainFile, Program, type Settings, toYaml } from "./program.ts";
import type { Host } from "./network.ts";
import type { Seen, Services } from "./network-server.ts";

const serverProgram = fileURLToPath(new URL("network-server.ts", import.meta.url));

/** The user that the capture exempts, and the agent's. */
export const proxyUid = 1337;
export const agentUid = 1000;

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

/** How it is started. */
export interface HostedProxyOptions {
  readonly uid?: number;
  readonly capabilities?: readonly string[];
  readonly files?: Readonly<Record<string, string>>;
}

/** Starts the program as the proxy's user; `DIRECTORY` in the configuration stands for its own directory. */
export async function proxyIn(
  host: Host,
  config: Settings,
  { uid = proxyUid, capabilities = [], files = {} }: HostedProxyOptions = {},
): Promise<Program> {
  const directory = await mkdtemp(join(tmpdir(), "authbridge-network-"));
  await chown(directory, uid, uid);
  // The agent reads the certificate that it is to trust.
  await chmod(directory, 0o755);
  const text = toYaml(config).replaceAll("DIRECTORY", directory);
  for (const [name, body] of Object.entries({ "proxy.yaml": text, ...files })) {
    await writeFile(join(directory, name), body);
    await chown(join(directory, name), uid, uid);
  }
  const command = [process.execPath, mainFile, "--config", join(directory, "proxy.yaml")];
  // The checkout may be in a place that only root can read.
  const child = host.start(command, { uid, capabilities: ["dac_read_search", ...capabilities] });
  return new Program({ child, directory }).serving();
}
