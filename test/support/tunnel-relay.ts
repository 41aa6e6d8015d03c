/** For clients that know of no proxy, or of no client certificate: each connection is joined with one that is opened for it. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { Server as TlsServer } from "node:tls";
import type { Address } from "./http-client.ts";

/** A server on loopback. */
export class TunnelRelay {
  readonly #server: Server;
  readonly #sockets = new Set<Duplex>();

  private constructor(server: Server, open: () => Promise<Duplex>) {
    this.#server = server;
    server.on(server instanceof TlsServer ? "secureConnection" : "connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on("error", () => undefined);
      open().then(
        (other) => this.#join(socket, other),
        () => socket.destroy(),
      );
    });
    server.on("tlsClientError", () => undefined);
  }

  static async start(
    open: () => Promise<Duplex>,
    server = createServer(),
    at: Address = { host: "127.0.0.1", port: 0 },
  ): Promise<TunnelRelay> {
    const relay = new TunnelRelay(server, open);
    server.listen(at.port, at.host);
    await once(server, "listening");
    return relay;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  #join(socket: Duplex, other: Duplex): void {
    this.#sockets.add(other);
    other.on("error", () => undefined);
    socket.pipe(other).pipe(socket);
    socket.once("close", () => other.destroy());
    other.once("close", () => socket.destroy());
  }
}

/** A tunnel through a proxy, by CONNECT. */
export async function tunnelThrough(proxy: Address, target: string): Promise<Socket> {
  const socket = connect(proxy);
  socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`);
  await once(socket, "readable");
  const bytes = socket.read() as Buffer;
  const end = bytes.indexOf("\r\n\r\n") + 4;
  if (!bytes.toString("latin1").startsWith("HTTP/1.1 200 ") || end < 4)
    throw new Error("no tunnel");
  // A server that speaks first.
  if (bytes.length > end) socket.unshift(bytes.subarray(end));
  return socket;
}
