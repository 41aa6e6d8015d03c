/** A real server of Redis or Valkey, which tests stop, kill, restart and empty. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually } from "./eventually.ts";
import { freePort } from "./free-port.ts";

const program = ["valkey-server", "redis-server"].find(
  (name) => spawnSync(name, ["--version"], { stdio: "ignore" }).status === 0,
);

/** Where there is none, the tests that need it are skipped (Debian: redis-server or valkey-server). */
export const hasRedis = program !== undefined;

/** One server on a loopback port of its own. Nothing is kept on its disk. */
export class RedisServer {
  readonly port: number;
  readonly #args: readonly string[];
  readonly #directory = mkdtempSync(join(tmpdir(), "authbridge-redis-"));
  #child: ChildProcess | undefined;

  private constructor(port: number, args: readonly string[]) {
    this.port = port;
    this.#args = args;
  }

  static async start(...args: string[]): Promise<RedisServer> {
    const server = new RedisServer(await freePort(), args);
    await server.restart();
    return server;
  }

  /** A sentinel that knows one server on loopback. */
  static async sentinel(name: string, of: number): Promise<RedisServer> {
    const sentinel = new RedisServer(await freePort(), []);
    const file = join(sentinel.#directory, "sentinel.conf");
    writeFileSync(
      file,
      `port ${sentinel.port}\nbind 127.0.0.1\nsentinel monitor ${name} 127.0.0.1 ${of} 1\n`,
    );
    sentinel.#child = spawn(program ?? "", [file, "--sentinel"], { stdio: "ignore" });
    await sentinel.#answers();
    return sentinel;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts it again, empty, on the same port. */
  async restart(): Promise<void> {
    const port = this.#args.includes("--tls-port") ? [] : ["--port", String(this.port)];
    const given = this.#args.map((arg) => (arg === "PORT" ? String(this.port) : arg));
    const common = ["--bind", "127.0.0.1", "--save", "", "--dir", this.#directory];
    this.#child = spawn(program ?? "", [...common, ...port, ...given], { stdio: "ignore" });
    await this.#answers();
  }

  async #answers(): Promise<void> {
    await eventually(async () => {
      const socket = connect(this.port, "127.0.0.1");
      await once(socket, "connect");
      socket.destroy();
    });
  }

  /** SIGSTOP and SIGCONT: it is there, and does not answer. */
  hang(): void {
    this.#child?.kill("SIGSTOP");
  }

  goOn(): void {
    this.#child?.kill("SIGCONT");
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "close");
  }

  /** Sends one command in its inline form, and resolves with the first line of the answer. */
  async command(line: string): Promise<string> {
    const socket = connect(this.port, "127.0.0.1");
    socket.write(`${line}\r\n`);
    const [data] = (await once(socket, "data")) as [Buffer];
    socket.destroy();
    return data.toString("utf8");
  }

  flush(): Promise<string> {
    return this.command("FLUSHALL");
  }

  async close(): Promise<void> {
    await this.kill();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
