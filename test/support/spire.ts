/** SPIRE's server and agent on loopback, from the binaries in `SPIRE_HOME`. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { linkSync, copyFileSync, mkdirSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { eventually } from "./eventually.ts";
import { freePort } from "./free-port.ts";

const run = promisify(execFile);
const startLimitMs = 120_000;

/** A workload of this machine: the copy of node whose path the agent knows it by. */
export interface Workload {
  readonly spiffeId: string;
  readonly node: string;
}

/** One trust domain with one node. */
export class Spire {
  readonly trustDomain = "example.org";
  readonly #home: string;
  readonly #directory: string;
  #server: ChildProcess | undefined;
  #agent: ChildProcess | undefined;
  /** The end of what both have logged. */
  readonly lines: string[] = [];

  private constructor(home: string, directory: string) {
    this.#home = home;
    this.#directory = directory;
  }

  static async start(home: string): Promise<Spire> {
    const spire = new Spire(home, await mkdtemp(join(tmpdir(), "spire-")));
    await spire.#configure(await freePort());
    spire.#server = spire.#spawn("spire-server", "server.conf");
    await eventually(() => spire.server("healthcheck"), startLimitMs);
    const { stdout } = await spire.server(
      "token",
      "generate",
      "-spiffeID",
      `spiffe://${spire.trustDomain}/node`,
    );
    const token = /Token: (\S+)/.exec(stdout)?.[1] ?? "";
    await spire.startAgent("-joinToken", token);
    return spire;
  }

  /** The value of `spiffe.socket`. */
  get address(): string {
    return `unix://${this.#path("agent.sock")}`;
  }

  /** A command of `spire-server`. */
  server(...args: string[]): Promise<{ stdout: string }> {
    const at = args.findIndex((one) => one.startsWith("-"));
    const command = at === -1 ? args : args.slice(0, at);
    const rest = args.slice(command.length);
    const socket = ["-socketPath", this.#path("server.sock")];
    return run(join(this.#home, "spire-server"), [...command, ...socket, ...rest]);
  }

  /** A copy of node that the agent can tell from others; it is not registered yet. */
  workload(name: string): Workload {
    const node = this.#path(join(name, "node"));
    mkdirSync(dirname(node));
    try {
      linkSync(process.execPath, node);
    } catch {
      // Another file system.
      copyFileSync(process.execPath, node);
    }
    return { spiffeId: `spiffe://${this.trustDomain}/${name}`, node };
  }

  /** Registers a workload, whose SVIDs live for this many seconds. */
  async register({ spiffeId, node }: Workload, ttl: number, ...more: string[]): Promise<void> {
    await this.server(
      "entry",
      "create",
      "-parentID",
      `spiffe://${this.trustDomain}/node`,
      "-spiffeID",
      spiffeId,
      "-selector",
      `unix:path:${node}`,
      "-x509SVIDTTL",
      String(ttl),
      "-jwtSVIDTTL",
      String(ttl),
      ...more,
    );
  }

  async startAgent(...args: string[]): Promise<void> {
    this.#agent = this.#spawn("spire-agent", "agent.conf", ...args);
    const socket = ["-socketPath", this.#path("agent.sock")];
    await eventually(
      () => run(join(this.#home, "spire-agent"), ["healthcheck", ...socket]),
      startLimitMs,
    );
  }

  /** Ends the agent as the kernel would. */
  async killAgent(): Promise<void> {
    await end(this.#agent);
    await rm(this.#path("agent.sock"), { force: true });
  }

  async close(): Promise<void> {
    await end(this.#agent);
    await end(this.#server);
    await rm(this.#directory, { recursive: true, force: true });
  }

  #path(name: string): string {
    return join(this.#directory, name);
  }

  #spawn(program: string, file: string, ...args: string[]): ChildProcess {
    const child = spawn(join(this.#home, program), ["run", "-config", this.#path(file), ...args], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        this.lines.push(`${program}: ${line}`);
        if (this.lines.length > 200) this.lines.shift();
      });
    }
    return child;
  }

  async #configure(port: number): Promise<void> {
    const quoted = (name: string): string => JSON.stringify(this.#path(name));
    await writeFile(
      this.#path("server.conf"),
      `server {
  bind_address = "127.0.0.1"
  bind_port = "${port}"
  socket_path = ${quoted("server.sock")}
  trust_domain = "${this.trustDomain}"
  data_dir = ${quoted("server")}
  log_level = "WARN"
  ca_ttl = "1h"
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3", connection_string = ${quoted("data.sqlite3")} } }
  KeyManager "memory" { plugin_data {} }
  NodeAttestor "join_token" { plugin_data {} }
}
`,
    );
    await writeFile(
      this.#path("agent.conf"),
      `agent {
  server_address = "127.0.0.1"
  server_port = "${port}"
  socket_path = ${quoted("agent.sock")}
  trust_domain = "${this.trustDomain}"
  data_dir = ${quoted("agent")}
  log_level = "WARN"
  insecure_bootstrap = true
}
plugins {
  KeyManager "disk" { plugin_data { directory = ${quoted("keys")} } }
  NodeAttestor "join_token" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data { discover_workload_path = true } }
}
`,
    );
    mkdirSync(this.#path("keys"));
  }
}

async function end(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
}
