/** Ways into a proxy for a WebSocket peer that knows of no proxy: a port for each, which asks the proxy in that way. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { createServer as createTlsServer, type TLSSocket } from "node:tls";
import type { BridgeProxy } from "./bridge-proxy.ts";
import type { ServerCertificate } from "./certs.ts";

/** What a way makes of the head of an upgrade: where to, what is sent there, and what the client is told at once. */
interface Opened {
  readonly stream: Duplex;
  readonly request: string;
  readonly response?: string;
}

/** One way into a proxy. */
export type Way = (head: string) => Promise<Opened>;

/** A port of loopback. */
export class Port {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
      socket.on("error", () => undefined);
    });
  }

  static async listen(server: Server): Promise<Port> {
    const made = new Port(server);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return made;
  }

  get number(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}

/** A port whose connections go that way. */
export function door(way: Way): Promise<Port> {
  const enter = async (client: Socket): Promise<void> => {
    const { head, rest } = await readHead(client);
    const { stream, request, response = "" } = await way(head);
    stream.write(Buffer.concat([Buffer.from(request, "latin1"), rest]));
    if (response !== "") client.write(response);
    join(client, stream);
  };
  return Port.listen(
    createServer({ allowHalfOpen: true }, (client) => {
      enter(client).catch(() => client.destroy());
    }),
  );
}

/** Serves TLS, and hands what is inside to a port whose server wants to be called by it. */
export function tlsFront(certificate: ServerCertificate, to: number): Promise<Port> {
  const enter = async (secured: TLSSocket): Promise<void> => {
    const { head, rest } = await readHead(secured);
    const stream = await dial(to);
    stream.write(Buffer.concat([Buffer.from(withHost(head, `127.0.0.1:${to}`), "latin1"), rest]));
    join(secured, stream);
  };
  return Port.listen(
    createTlsServer({ ...certificate, allowHalfOpen: true }, (secured) => {
      secured.on("error", () => undefined);
      enter(secured).catch(() => secured.destroy());
    }),
  );
}

/** Absolute form: `GET http://origin/path`. */
export const absoluteForm =
  (proxy: number, origin: string): Way =>
  async (head) => ({
    stream: await dial(proxy),
    request: withHost(head, origin).replace(/ \//, ` http://${origin}/`),
  });

/** No proxy that a client would know of: its request as it is. */
export const asItIs =
  (proxy: number, origin: string): Way =>
  async (head) => ({ stream: await dial(proxy), request: withHost(head, origin) });

/** In a stream that somebody opens: a tunnel, TLS within one. */
export const within =
  (origin: string, open: () => Promise<Duplex>): Way =>
  async (head) => ({ stream: await open(), request: withHost(head, origin) });

/** Over HTTP/2 inside the bridge (RFC 8441). */
export const overHttp2 =
  (proxy: BridgeProxy, origin: string): Way =>
  async (head) => {
    const fields = fieldsOf(head);
    const session = await proxy.http2(origin);
    if (!session.remoteSettings?.enableConnectProtocol) await once(session, "remoteSettings");
    const kept = Object.fromEntries(
      [...fields].filter(
        ([name]) => !["host", "connection", "upgrade", "sec-websocket-key"].includes(name),
      ),
    );
    const stream = session.request(
      {
        ...kept,
        ":method": "CONNECT",
        ":protocol": "websocket",
        ":scheme": "https",
        ":authority": origin,
        ":path": head.split(" ")[1] ?? "/",
      },
      { endStream: false },
    );
    stream.once("close", () => session.destroy());
    const [answer] = (await once(stream, "response")) as [Record<string, string | undefined>];
    const accept = createHash("sha1")
      .update(`${fields.get("sec-websocket-key")}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
      .digest("base64");
    const said = Object.entries(answer)
      .filter(([name]) => name.startsWith("sec-websocket-"))
      .map(([name, value]) => `${name}: ${value}\r\n`);
    const response =
      Number(answer[":status"]) === 200
        ? `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n${said.join("")}\r\n`
        : `HTTP/1.1 ${answer[":status"]} Refused\r\nContent-Length: 0\r\n\r\n`;
    return { stream, request: "", response };
  };

async function dial(port: number): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  await once(socket, "connect");
  return socket;
}

/** Each end, fault and byte of one side is the other's. */
function join(client: Duplex, stream: Duplex): void {
  client.pipe(stream);
  stream.pipe(client);
  const follow = (one: Duplex, other: Duplex): void => {
    one.on("error", () => other.destroy());
    one.once("close", () => other.end());
  };
  follow(client, stream);
  follow(stream, client);
}

async function readHead(client: Socket): Promise<{ head: string; rest: Buffer }> {
  let seen = Buffer.alloc(0);
  for await (const chunk of client.iterator({ destroyOnReturn: false })) {
    seen = Buffer.concat([seen, chunk as Buffer]);
    const end = seen.indexOf("\r\n\r\n");
    if (end >= 0)
      return { head: seen.toString("latin1", 0, end + 4), rest: seen.subarray(end + 4) };
  }
  throw new Error("the client ended before its head");
}

const withHost = (head: string, origin: string): string =>
  head.replace(/^host:.*$/im, `Host: ${origin}`);

function fieldsOf(head: string): Map<string, string> {
  const lines = head.trimEnd().split("\r\n").slice(1);
  return new Map(
    lines.map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    }),
  );
}
