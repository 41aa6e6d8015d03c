/** A whole proxy on free loopback ports, with raw sockets on both sides: what a hostile peer has. */
import { rm } from "node:fs/promises";
import net, { type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import tls from "node:tls";
import { pino } from "pino";
import { App } from "../../src/app/app.ts";
import { type Address, RawClient } from "./http-client.ts";
import { makeDirectory, RunningProxy, type Settings } from "./program.ts";
import { merge, settings } from "./proxy.ts";

/** A proxy in the process of the test: it starts in no time, so that every test can have one of its own. */
export class AttackedProxy extends RunningProxy {
  readonly #directory: string;
  #app: App | undefined;

  private constructor(directory: string) {
    super();
    this.#directory = directory;
  }

  /** Starts with the given blocks; it records no sessions and does not follow its file. */
  static async start(blocks: Settings): Promise<AttackedProxy> {
    const quiet = { session: { enabled: false }, reload: { enabled: false }, plugin_modules: [] };
    const directory = await makeDirectory(settings(merge(quiet, blocks)), {});
    const proxy = new AttackedProxy(directory);
    const write = (line: string): void => void proxy.logs.push(JSON.parse(line));
    const log = pino({ level: "info" }, { write });
    const file = join(directory, "proxy.yaml");
    proxy.#app = await App.start({ file, lenient: false, env: {}, version: "0.0.0", log });
    const serving = await proxy.log(({ msg }) => msg === "serving");
    proxy.addresses = serving["addresses"] as Readonly<Record<string, Address>>;
    return proxy;
  }

  async close(): Promise<void> {
    await this.#app?.close(0);
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** A connection inside a CONNECT that the bridge opens. */
export async function innerConnection(
  { port }: Address,
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
export async function exchangeRaw(address: Address, text: string): Promise<string> {
  const client = await RawClient.connect(address);
  const seen = await client.send(text).ended();
  client.close();
  return seen;
}

/** A connection to a {@link RawOrigin}, and all that came over it. */
interface RawConnection {
  readonly socket: Socket;
  readonly seen: string;
}

/** A TCP server that does with its connections what the test says, and remembers the bytes it got. */
export class RawOrigin {
  readonly connections: RawConnection[] = [];
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
      const connection = { socket, seen: "" };
      origin.connections.push(connection);
      socket.on("error", () => undefined);
      let answered = 0;
      socket.setEncoding("latin1").on("data", (text: string) => {
        connection.seen += text;
        const heads = connection.seen.split("\r\n\r\n").slice(0, -1);
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
