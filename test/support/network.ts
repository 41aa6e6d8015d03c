/** Hosts of a network that a test makes for itself: Linux namespaces around a router. Needs root and a kernel with veth. */
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";

/** What a command said, and how it ended. */
export interface Output {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Whom a command runs as, and what it finds around it. */
export interface CommandOptions {
  /** User and group id; root otherwise. */
  readonly uid?: number;
  /** Capabilities that the user keeps, e.g. `dac_read_search`. */
  readonly capabilities?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
}

/** Why this machine cannot make networks, or undefined. Tests that cannot run must say so in a line. */
export function networkObstacle(...commands: readonly string[]): string | undefined {
  if (process.platform !== "linux")
    return `namespaces are a thing of Linux, not of ${process.platform}`;
  if (process.getuid?.() !== 0) return "network namespaces need root";
  for (const command of ["ip", "setpriv", ...commands]) {
    try {
      execFileSync("sh", ["-c", `command -v ${command}`], { stdio: "ignore", env: commandPath });
    } catch {
      return `${command} is not installed`;
    }
  }
  const probe = `abt-${process.pid}-probe`;
  try {
    execFileSync("ip", ["netns", "add", probe], { stdio: "pipe", env: commandPath });
    execFileSync(
      "ip",
      ["link", "add", "e0", "netns", probe, "type", "veth", "peer", "name", "e1", "netns", probe],
      { stdio: "pipe", env: commandPath },
    );
    return undefined;
  } catch (error) {
    return `namespaces cannot be made here: ${error instanceof Error ? error.message : String(error)}`;
  } finally {
    try {
      execFileSync("ip", ["netns", "del", probe], { stdio: "ignore", env: commandPath });
    } catch {
      // It was not made.
    }
  }
}

/** Writes the line that says that something was not tested, where people and CI see it. */
export function sayWhenSkipped(what: string, obstacle: string | undefined): void {
  if (obstacle !== undefined) process.stderr.write(`SKIPPED: ${what}: ${obstacle}\n`);
}

/** Debian keeps these commands where an ordinary PATH does not look. */
const commandPath = { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` };

/** Addresses of a host. Its router has the same with a 1 at the end. */
export interface HostAddresses {
  /** e.g. `198.51.100.2` of a /24 */
  readonly ipv4: string;
  /** e.g. `2001:db8:51::2` of a /64 */
  readonly ipv6: string;
}

let networks = 0;

/** A router and the hosts around it. */
export class Network {
  readonly router: Host;
  readonly #hosts: Host[] = [];
  readonly #prefix: string;

  constructor() {
    networks += 1;
    this.#prefix = `abt-${process.pid}-${networks}`;
    this.router = new Host(`${this.#prefix}-router`, { ipv4: "127.0.0.1", ipv6: "::1" });
    this.router.runSync("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1");
  }

  /** A new host, with the router as its way to everywhere. `nameservers` is what its processes find in /etc/resolv.conf. */
  host(name: string, addresses: HostAddresses, nameservers: readonly string[] = []): Host {
    const host = new Host(`${this.#prefix}-${name}`, addresses);
    this.#hosts.push(host);
    const link = `to-${name}`;
    const gateway = {
      ipv4: addresses.ipv4.replace(/\d+$/, "1"),
      ipv6: addresses.ipv6.replace(/[0-9a-f]+$/, "1"),
    };
    ip(
      "link",
      "add",
      "e0",
      "netns",
      host.name,
      "type",
      "veth",
      "peer",
      "name",
      link,
      "netns",
      this.router.name,
    );
    for (const [one, device, ends] of [
      [host, "e0", addresses],
      [this.router, link, gateway],
    ] as const) {
      ip("-n", one.name, "addr", "add", `${ends.ipv4}/24`, "dev", device);
      ip("-n", one.name, "-6", "addr", "add", `${ends.ipv6}/64`, "dev", device, "nodad");
      ip("-n", one.name, "link", "set", device, "up");
    }
    ip("-n", host.name, "route", "add", "default", "via", gateway.ipv4);
    ip("-n", host.name, "-6", "route", "add", "default", "via", gateway.ipv6);
    const lines = nameservers.map((server) => `nameserver ${server}\n`);
    mkdirSync(host.etc, { recursive: true });
    writeFileSync(host.resolvConf, lines.join(""));
    writeFileSync(`${host.etc}/hosts`, "127.0.0.1 localhost\n::1 localhost\n");
    return host;
  }

  /** Ends what runs in the hosts and removes them. */
  async close(): Promise<void> {
    for (const host of [...this.#hosts, this.router]) await host.close();
  }
}

/** One namespace. */
export class Host {
  readonly name: string;
  readonly ipv4: string;
  readonly ipv6: string;
  /** Files that processes of this host find in /etc instead of the machine's. */
  readonly etc: string;
  readonly #children = new Set<ChildProcess>();

  constructor(name: string, { ipv4, ipv6 }: HostAddresses) {
    this.name = name;
    this.ipv4 = ipv4;
    this.ipv6 = ipv6;
    this.etc = `/etc/netns/${name}`;
    ip("netns", "add", name);
    ip("-n", name, "link", "set", "lo", "up");
  }

  get resolvConf(): string {
    return `${this.etc}/resolv.conf`;
  }

  runSync(command: string, ...args: readonly string[]): string {
    return execFileSync("ip", ["netns", "exec", this.name, command, ...args], {
      encoding: "utf8",
      env: commandPath,
      stdio: ["ignore", "pipe", "pipe"],
    });
  }

  /** Runs a command to its end, within 20 seconds. */
  run(command: readonly string[], options: CommandOptions = {}): Promise<Output> {
    return new Promise((resolve) => {
      const child = execFile(
        "ip",
        ["netns", "exec", this.name, ...asUser(options), ...command],
        { timeout: 20_000, killSignal: "SIGKILL", env: { ...commandPath, ...options.env } },
        (error, stdout, stderr) => {
          this.#children.delete(child);
          const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
          resolve({ code, stdout, stderr });
        },
      );
      this.#children.add(child);
      // A command that ended before it read is no fault of the test.
      child.stdin?.on("error", () => undefined);
      child.stdin?.end(options.input ?? "");
    });
  }

  /** Starts a command that runs until the host is closed, or until it ends by itself. */
  start(command: readonly string[], options: CommandOptions = {}): ChildProcess {
    const child = spawn("ip", ["netns", "exec", this.name, ...asUser(options), ...command], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...commandPath, NODE_ENV: "test", ...options.env },
    });
    this.#children.add(child);
    child.once("close", () => this.#children.delete(child));
    return child;
  }

  async close(): Promise<void> {
    const ends = [...this.#children].map(
      (child) =>
        new Promise((resolve) => {
          child.once("close", resolve);
          child.kill("SIGKILL");
        }),
    );
    await Promise.all(ends);
    ip("netns", "del", this.name);
    rmSync(this.etc, { recursive: true, force: true });
  }
}

/** `setpriv` and `ip netns exec` replace themselves by the command: a signal to the child is one to the command. */
function asUser({ uid, capabilities = [] }: CommandOptions): string[] {
  if (uid === undefined) return [];
  const kept = capabilities.map((name) => `+${name}`).join(",");
  const keep = kept === "" ? [] : [`--inh-caps=${kept}`, `--ambient-caps=${kept}`];
  return ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", ...keep];
}

function ip(...args: readonly string[]): void {
  execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"], env: commandPath });
}
