/** A parent proxy that writes down what it was asked and does what it is told, lawful or not. */
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import type { ServerCertificate } from "./certs.ts";

/** Bytes to answer a request head with; `forward` to do one's work; nothing when the connection is dealt with. */
export type ParentAct = (head: string, socket: Socket) => string | Buffer | void;

/** Serves CONNECT and absolute-form requests on loopback. */
export class StubParent {
  /** Heads of requests, whole. */
  readonly heads: string[] = [];
  accepted = 0;
  act: ParentAct = () => "forward";
  /** Names that it resolves, all to loopback, as a site's own DNS would. */
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #scheme: "http" | "https";

  private constructor(server: Server, scheme: "http" | "https") {
    this.#server = server;
    this.#scheme = scheme;
    server.on(scheme === "https" ? "secureConnection" : "connection", (socket: Socket) => {
      this.accepted += 1;
      this.#keep(socket);
      this.#serve(socket);
    });
    server.on("tlsClientError", () => undefined);
  }

  static async start(certificate?: ServerCertificate): Promise<StubParent> {
    const server = certificate === undefined ? createServer() : createTlsServer({ ...certificate });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new StubParent(server, certificate === undefined ? "http" : "https");
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `${this.#scheme}://127.0.0.1:${this.port}`;
  }

  /** First lines of the requests. */
  get lines(): string[] {
    return this.heads.map((head) => head.split("\r\n")[0] ?? "");
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => undefined);
    socket.once("close", () => this.#sockets.delete(socket));
  }

  #serve(socket: Socket): void {
    let seen = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      seen = Buffer.concat([seen, chunk]);
      const end = seen.indexOf("\r\n\r\n");
      if (end === -1) return;
      const head = seen.toString("latin1", 0, end + 4);
      const rest = seen.subarray(end + 4);
      seen = Buffer.alloc(0);
      this.heads.push(head);
      const act = this.act(head, socket);
      if (act === undefined) return;
      if (act !== "forward") {
        socket.write(act);
        return;
      }
      socket.off("data", onData);
      this.#forward(head, rest, socket);
    };
    socket.on("data", onData);
  }

  /** One connection to one destination, the way small proxies do it. */
  #forward(head: string, rest: Buffer, socket: Socket): void {
    const [method = "", target = ""] = head.split(" ");
    const authority = method === "CONNECT" ? target : new URL(target).host;
    const port = Number(/:(\d+)$/.exec(authority)?.[1] ?? 80);
    const upstream = connect({ host: "127.0.0.1", port, allowHalfOpen: true });
    this.#keep(upstream);
    upstream.once("connect", () => {
      if (method === "CONNECT") socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      else upstream.write(originForm(head, target));
      upstream.write(rest);
      socket.pipe(upstream);
      upstream.pipe(socket);
    });
    upstream.once("error", () =>
      socket.end("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
    );
    socket.once("close", () => upstream.destroy());
  }
}

function originForm(head: string, target: string): string {
  const { pathname, search } = new URL(target);
  return head
    .replace(target, `${pathname}${search}`)
    .replace(/^proxy-authorization:.*\r\n/im, "")
    .replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
}

/** Where nothing listens. */
export async function closedPort(): Promise<number> {
  const parent = await StubParent.start();
  const { port } = parent;
  await parent.close();
  return port;
}
