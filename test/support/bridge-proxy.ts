/** The program with its TLS bridge on, as a process, and the ways into it: CONNECT, TLS, HTTP/1.1, HTTP/2. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import {
  type ClientHttp2Session,
  connect as connectHttp2,
  type SecureClientSessionOptions,
} from "node:http2";
import { connect as connectTcp, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from "node:tls";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { Wire, type WireAnswer } from "./wire.ts";

/** A part of a configuration file. */
export type Settings = { readonly [key: string]: unknown };

const program = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
const pluginModule = fileURLToPath(new URL("bridge-plugins.ts", import.meta.url));

/** Calls `look` until it answers something else than false or undefined. */
export async function eventually<T>(
  what: string,
  look: () => T | Promise<T>,
  withinMs = 10_000,
): Promise<Exclude<T, false | undefined>> {
  const deadline = Date.now() + withinMs;
  for (;;) {
    const value = await look();
    if (value !== false && value !== undefined) return value as Exclude<T, false | undefined>;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Rejects when the promise takes longer. */
export async function within<T>(what: string, promise: Promise<T>, limitMs = 10_000): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`${what}: not within ${limitMs} ms`));
    }, limitMs);
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}

/** What a bridge is started with. */
export interface BridgeOptions {
  /** Ports that are bridged. */
  readonly ports: readonly number[];
  /** PEM of the authority that origins are trusted by. */
  readonly originCa?: string;
  /** Names of origins, all on 127.0.0.1. */
  readonly names?: readonly string[];
  /** The outbound chain. */
  readonly plugins?: readonly unknown[];
  /** `pipeline.outbound.default`; the program's own when left out. */
  readonly otherwise?: "allow" | "deny";
  /** Further keys of `tls_bridge`. */
  readonly bridge?: Settings;
  readonly limits?: Settings;
  /** Further top-level keys. */
  readonly file?: Settings;
  /** An existing authority directory; a fresh one is generated otherwise. */
  readonly caDir?: string;
}

/** The names that every bridge of the tests knows. */
export const names: readonly string[] = [
  "api.allowed.test",
  "www.allowed.test",
  "other.allowed.test",
  "pinned.test",
  "evil.test",
];

/** The file for a bridge whose files live in `directory`. */
export function bridgeConfig(options: BridgeOptions, directory: string): Settings {
  const hosts = Object.fromEntries(
    [...names, ...(options.names ?? [])].map((name) => [name, ["127.0.0.1"]]),
  );
  return {
    listener: {
      roles: ["forward"],
      forward_proxy_addr: "127.0.0.1:0",
      session_api_addr: "127.0.0.1:0",
      health_addr: "127.0.0.1:0",
    },
    stats: { address: "127.0.0.1:0" },
    plugin_modules: [pluginModule],
    egress: { allow_ips: ["127.0.0.0/8"], hosts },
    reload: { debounce: "50ms" },
    limits: { drain_timeout: "1s", ...options.limits },
    pipeline: {
      outbound: {
        plugins: options.plugins ?? [],
        ...(options.otherwise === undefined ? {} : { default: options.otherwise }),
      },
    },
    tls_bridge: {
      mode: "enabled",
      ca_dir: options.caDir ?? join(directory, "ca"),
      generate_ca: options.caDir === undefined,
      ports: options.ports,
      ...(options.originCa === undefined
        ? {}
        : { upstream_ca_bundle: join(directory, "origins.pem") }),
      ...options.bridge,
    },
    ...options.file,
  };
}

/** What came of a CONNECT. */
export interface Connected {
  readonly status: number;
  readonly answer: WireAnswer | undefined;
  readonly socket: Socket;
}

/** How to open TLS in a tunnel; the name in the certificate is checked against the CONNECT host. */
export interface TunnelTls extends ConnectionOptions {
  /** Name in the ClientHello; the CONNECT host by default, none when empty. */
  readonly sni?: string;
  readonly connectHeaders?: string;
}

type Addresses = Readonly<Record<string, { readonly host: string; readonly port: number }>>;

/** A running proxy. */
export class BridgeProxy {
  readonly directory: string;
  readonly logs: Readonly<Record<string, unknown>>[] = [];
  readonly lines: string[] = [];
  readonly exited: Promise<number | null>;
  readonly #child: ChildProcess;
  readonly #caDir: string;
  readonly #sockets = new Set<Socket>();
  #addresses: Addresses = {};
  #exitCode: number | null | undefined;

  private constructor(child: ChildProcess, directory: string, caDir: string) {
    this.#child = child;
    this.#caDir = caDir;
    this.directory = directory;
    if (child.stderr === null) throw new Error("no stderr");
    createInterface({ input: child.stderr }).on("line", (line) => {
      this.lines.push(line);
      if (line.startsWith("{")) this.logs.push(JSON.parse(line) as Record<string, unknown>);
    });
    child.stdout?.resume();
    this.exited = new Promise((resolve) => {
      child.once("close", (code) => {
        this.#exitCode = code;
        resolve(code);
      });
    });
  }

  /** Starts the program and waits until it serves. */
  static async start(options: BridgeOptions): Promise<BridgeProxy> {
    const proxy = await BridgeProxy.launch(options);
    try {
      await eventually("the proxy serves", () => proxy.#isServing(), 25_000);
    } catch (error) {
      await proxy.close();
      throw error;
    }
    return proxy;
  }

  /** Starts the program; it may well refuse to. */
  static async launch(options: BridgeOptions): Promise<BridgeProxy> {
    const directory = await mkdtemp(join(tmpdir(), "authbridge-bridge-"));
    await writeFile(join(directory, "origins.pem"), options.originCa ?? "");
    const file = join(directory, "proxy.yaml");
    await writeFile(file, stringify(bridgeConfig(options, directory)));
    const child = spawn(process.execPath, [program, "--config", file], {
      cwd: directory,
      env: { PATH: process.env["PATH"] ?? "", HOME: directory },
      stdio: ["ignore", "pipe", "pipe"],
    });
    return new BridgeProxy(child, directory, options.caDir ?? join(directory, "ca"));
  }

  /** Starts a file that must be refused; the answer is what the program said, and its exit code. */
  static async refused(options: BridgeOptions): Promise<{ code: number | null; said: string }> {
    const proxy = await BridgeProxy.launch(options);
    try {
      const code = await within("the program refuses its file", proxy.exited, 20_000);
      return { code, said: proxy.lines.join("\n") };
    } finally {
      await proxy.close();
    }
  }

  /** Runs `check` on a file. */
  static async check(options: BridgeOptions): Promise<{ code: number; output: string }> {
    const directory = await mkdtemp(join(tmpdir(), "authbridge-bridge-"));
    const file = join(directory, "proxy.yaml");
    await writeFile(join(directory, "origins.pem"), options.originCa ?? "");
    await writeFile(file, stringify(bridgeConfig(options, directory)));
    try {
      const { status, stdout, stderr } = spawnSync(
        process.execPath,
        [program, "check", "--config", file],
        { encoding: "utf8", timeout: 20_000 },
      );
      return { code: status ?? -1, output: status === 0 ? stdout : stderr };
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  #isServing(): boolean {
    if (this.#exitCode !== undefined) {
      throw new Error(`the proxy ended with ${this.#exitCode}:\n${this.lines.join("\n")}`);
    }
    const line = this.logs.find((log) => log["msg"] === "serving");
    if (line === undefined) return false;
    this.#addresses = line["addresses"] as Addresses;
    return true;
  }

  /** True until the process ends. */
  get isAlive(): boolean {
    return this.#exitCode === undefined;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  address(surface: string): { readonly host: string; readonly port: number } {
    const address = this.#addresses[surface];
    if (address === undefined) throw new Error(`${surface} is not bound`);
    return address;
  }

  /** URL of the forward listener, for `HTTPS_PROXY`. */
  get url(): string {
    return `http://127.0.0.1:${this.address("forward").port}`;
  }

  /** Path of the certificate that clients have to trust. */
  get caFile(): string {
    return join(this.#caDir, "ca.crt");
  }

  get ca(): string {
    return readFileSync(this.caFile, "utf8");
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  /** Lines of a file that a test plugin wrote. */
  async notes(name: string): Promise<Readonly<Record<string, unknown>>[]> {
    const text = await readFile(this.path(name), "utf8").catch(() => "");
    return text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  /** Waits for a log line. */
  log(
    what: string,
    predicate: (line: Readonly<Record<string, unknown>>) => boolean,
  ): Promise<Readonly<Record<string, unknown>>> {
    return eventually(what, () => this.logs.find(predicate));
  }

  /** GET on one of the operator's surfaces. */
  async operator(surface: "stats" | "sessions" | "health", path: string): Promise<string> {
    const { host, port } = this.address(surface);
    const response = await fetch(`http://${host}:${port}${path}`);
    return response.text();
  }

  /** Sum of the samples of /metrics whose line matches. */
  async metric(pattern: RegExp): Promise<number> {
    const text = await this.operator("stats", "/metrics");
    return text
      .split("\n")
      .filter((line) => !line.startsWith("#") && pattern.test(line))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
  }

  /** A connection to the forward listener. */
  async dial(): Promise<Socket> {
    const { host, port } = this.address("forward");
    const socket = connectTcp({ host, port, noDelay: true });
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    socket.on("error", () => undefined);
    return socket;
  }

  /** Sends CONNECT and reads its answer; the bytes after it stay in the socket. */
  async connect(authority: string, headers = ""): Promise<Connected> {
    const socket = await this.dial();
    socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${headers}\r\n`);
    const head = await within("an answer to CONNECT", readHead(socket));
    const status = Number(head.split(" ")[1]);
    if (status === 200) return { status, answer: undefined, socket };
    socket.unshift(Buffer.from(head, "latin1"));
    return { status, answer: await new Wire(socket).answer(), socket };
  }

  /** A tunnel that must open. */
  async tunnel(authority: string, headers = ""): Promise<Socket> {
    const { status, answer, socket } = await this.connect(authority, headers);
    if (status !== 200) throw new Error(`CONNECT ${authority}: ${status} ${answer?.text}`);
    return socket;
  }

  /** CONNECT and a TLS handshake, with the proxy's CA trusted and nothing else. Rejects as the handshake does. */
  async tls(authority: string, options: TunnelTls = {}): Promise<TLSSocket> {
    const { sni, connectHeaders, ...rest } = options;
    const socket = await this.tunnel(authority, connectHeaders);
    const trust = rest.ca === undefined && rest.rejectUnauthorized !== false ? { ca: this.ca } : {};
    return handshake(socket, authority, { ALPNProtocols: ["http/1.1"], ...trust, ...rest }, sni);
  }

  /** A bridged HTTP/1.1 connection. */
  async http1(authority: string, options: TunnelTls = {}): Promise<Wire> {
    return new Wire(await this.tls(authority, options));
  }

  /** One bridged HTTP/1.1 request on a connection of its own. */
  async get(authority: string, path: string, headers = ""): Promise<WireAnswer> {
    const wire = await this.http1(authority);
    try {
      return await wire.ask(`GET ${path} HTTP/1.1\r\nHost: ${authority}\r\n${headers}\r\n`);
    } finally {
      wire.close();
    }
  }

  /** A bridged HTTP/2 session. */
  async http2(
    authority: string,
    options: TunnelTls = {},
    session: SecureClientSessionOptions = {},
  ): Promise<ClientHttp2Session> {
    const socket = await this.tls(authority, { ALPNProtocols: ["h2"], ...options });
    if (socket.alpnProtocol !== "h2") throw new Error(`ALPN gave ${String(socket.alpnProtocol)}`);
    const client = connectHttp2(`https://${authority}`, {
      ...session,
      createConnection: () => socket,
    });
    client.on("error", () => undefined);
    return client;
  }

  /** Replaces the file in one step. */
  async rewrite(options: BridgeOptions): Promise<void> {
    const next = join(this.directory, ".next");
    await writeFile(next, stringify(bridgeConfig(options, this.directory)));
    await rename(next, join(this.directory, "proxy.yaml"));
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Ends the process and removes its files. */
  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    if (this.isAlive) this.#child.kill("SIGKILL");
    await this.exited;
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** A client's handshake over an open connection. */
export async function handshake(
  socket: Socket,
  authority: string,
  options: ConnectionOptions,
  sni?: string,
): Promise<TLSSocket> {
  const host = authority.replace(/:\d+$/, "").replace(/^\[|\]$/g, "");
  const isAddress = /^[\d.]+$|:/.test(host);
  const servername = sni ?? (isAddress ? "" : host);
  const secured = connectTls({ socket, host, servername, ...options });
  return within(
    "a TLS handshake",
    new Promise<TLSSocket>((resolve, reject) => {
      secured.once("secureConnect", () => {
        secured.off("error", reject);
        secured.on("error", () => undefined);
        resolve(secured);
      });
      secured.once("error", reject);
      secured.once("close", () => {
        reject(new Error("closed during the handshake"));
      });
    }),
  );
}

/** The bytes up to the empty line; later ones are put back. */
function readHead(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let seen = Buffer.alloc(0);
    const stop = (): void => {
      socket.off("readable", onReadable);
      socket.off("end", onEnd);
      socket.off("close", onEnd);
    };
    const onReadable = (): void => {
      for (;;) {
        const chunk: unknown = socket.read();
        if (!Buffer.isBuffer(chunk)) return;
        seen = Buffer.concat([seen, chunk]);
        const at = seen.indexOf("\r\n\r\n");
        if (at === -1) continue;
        stop();
        if (seen.length > at + 4) socket.unshift(seen.subarray(at + 4));
        resolve(seen.toString("latin1", 0, at + 4));
        return;
      }
    };
    const onEnd = (): void => {
      stop();
      reject(new Error(`closed before an answer; read ${JSON.stringify(seen.toString("latin1"))}`));
    };
    socket.on("readable", onReadable);
    socket.on("end", onEnd);
    socket.on("close", onEnd);
  });
}
