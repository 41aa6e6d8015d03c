/** A whole proxy from a file on free loopback ports, with raw sockets on both sides: what a hostile peer has. */
import { mkdtemp, writeFile } from "node:fs/promises";
import net, { type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import tls from "node:tls";
import { pino } from "pino";
import { App } from "../../src/app/app.ts";
import { eventually } from "./eventually.ts";
import type { Address } from "./http-client.ts";
import { type LogLine, type Settings, sumOf, toYaml } from "./program.ts";

/** A proxy in the process of the test. */
export class AttackedProxy {
  readonly logs: LogLine[];
  readonly #app: App;

  private constructor(app: App, logs: LogLine[]) {
    this.#app = app;
    this.logs = logs;
  }

  /** Starts with the given blocks; listeners and the loopback exception are added. */
  static async start(blocks: Settings): Promise<AttackedProxy> {
    const file = join(await mkdtemp(join(tmpdir(), "attacked-")), "proxy.yaml");
    await writeFile(file, toYaml(withDefaults(blocks)));
    const logs: LogLine[] = [];
    const log = pino({ level: "info" }, { write: (line) => void logs.push(JSON.parse(line)) });
    const app = await App.start({ file, lenient: false, env: {}, version: "0.0.0", log });
    return new AttackedProxy(app, logs);
  }

  /** Where one of the surfaces listens. */
  address(name: "forward" | "reverse" | "stats" | "health" | "sessions"): Address {
    const port = this.#app.addresses[name]?.port;
    if (port === undefined) throw new Error(`${name} is not bound`);
    return { host: "127.0.0.1", port };
  }

  get forward(): Address {
    return this.address("forward");
  }

  get reverse(): Address {
    return this.address("reverse");
  }

  /** Waits for a log line. */
  log(predicate: (line: LogLine) => boolean): Promise<LogLine> {
    return eventually(() => this.logs.find(predicate) ?? false);
  }

  /** The value of one series of /metrics; 0 when it is not there. */
  async metric(name: string): Promise<number> {
    const { host, port } = this.address("stats");
    return sumOf(await (await fetch(`http://${host}:${port}/metrics`)).text(), name);
  }

  async close(): Promise<void> {
    await this.#app.close(0);
  }

  /** Lines that must never appear, whatever a stranger does. */
  get faults(): LogLine[] {
    const words = ["exchange fault", "plugin fault", "listener fault", "uncaught", "unhandled"];
    return this.logs.filter(({ msg }) => words.some((word) => msg.startsWith(word)));
  }
}

function withDefaults(blocks: Settings): Settings {
  const { listener, ...rest } = blocks;
  return {
    egress: { allow_ips: ["127.0.0.0/8"] },
    stats: { address: "127.0.0.1:0" },
    session: { enabled: false },
    reload: { enabled: false },
    ...rest,
    listener: {
      roles: ["forward"],
      forward_proxy_addr: "127.0.0.1:0",
      health_addr: "127.0.0.1:0",
      transparent_proxy_addr: "off",
      ...(listener as object | undefined),
    },
  };
}

/** A connection whose owner writes and reads bytes. */
export class RawClient {
  readonly socket: Socket;
  /** Set when the peer reset the connection. */
  failure: Error | undefined;
  #seen = "";
  #ended = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => (this.#seen += chunk));
    socket.on("end", () => (this.#ended = true));
    socket.on("close", () => (this.#ended = true));
    socket.on("error", (error) => (this.failure = error));
  }

  /** Connects; keeps its side open when the proxy ends its own, as a rude client does. */
  static async connect(port: number): Promise<RawClient> {
    const socket = net.connect({ host: "127.0.0.1", port, allowHalfOpen: true });
    const client = new RawClient(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return client;
  }

  get seen(): string {
    return this.#seen;
  }

  send(text: string): this {
    this.socket.write(text, "latin1");
    return this;
  }

  /** Everything until the proxy ended or cut the connection. */
  ended(): Promise<string> {
    return eventually(() => this.#ended && this.#seen);
  }

  /** Everything seen once it contains the text. */
  sees(text: string): Promise<string> {
    return eventually(() => (this.#seen.includes(text) || this.#ended) && this.#seen);
  }
}

/** A connection inside a CONNECT that the bridge opens. */
export async function innerConnection(
  port: number,
  authority: string,
  protocol: "h2" | "http/1.1",
): Promise<tls.TLSSocket> {
  const socket = net.connect({ host: "127.0.0.1", port });
  socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`);
  await new Promise((resolve) => socket.once("data", resolve));
  const servername = authority.slice(0, authority.lastIndexOf(":"));
  const options = { socket, servername, rejectUnauthorized: false, ALPNProtocols: [protocol] };
  const clear = tls.connect(options);
  await new Promise((resolve) => clear.once("secureConnect", resolve));
  return clear;
}

/** Sends the bytes on a new connection and gives what came back until the proxy closed it. */
export async function exchangeRaw(port: number, text: string): Promise<string> {
  const client = await RawClient.connect(port);
  const answer = await client.send(text).ended();
  client.socket.destroy();
  return answer;
}

/** A TCP server that does with its connections what the test says, and remembers the bytes it got. */
export class RawOrigin {
  readonly connections: RawClient[] = [];
  readonly #server: net.Server;

  private constructor(server: net.Server) {
    this.#server = server;
  }

  /** `onHead` is called once for every request head. */
  static async listen(
    onHead: (socket: Socket, head: string) => void = () => undefined,
  ): Promise<RawOrigin> {
    const server = net.createServer({ allowHalfOpen: true });
    const origin = new RawOrigin(server);
    server.on("connection", (socket) => {
      const client = new RawClient(socket);
      origin.connections.push(client);
      let answered = 0;
      socket.on("data", () => {
        const heads = client.seen.split("\r\n\r\n").slice(0, -1);
        for (; answered < heads.length; answered += 1) onHead(socket, heads[answered] ?? "");
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return origin;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Every byte that every connection brought. */
  get seen(): string {
    return this.connections.map(({ seen }) => seen).join("");
  }

  get open(): number {
    return this.connections.filter(({ socket }) => !socket.destroyed).length;
  }

  close(): void {
    for (const { socket } of this.connections) socket.destroy();
    this.#server.close();
  }
}
