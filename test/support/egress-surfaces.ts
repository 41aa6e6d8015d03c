/** The ways in which an agent can try to leave, each asked for the same destinations. */
import { once } from "node:events";
import { createServer as createHttp } from "node:http";
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { createServer as createHttps } from "node:https";
import { type AddressInfo, createServer as createTcp, type Server } from "node:net";
import type { Duplex } from "node:stream";
import { type BridgeProxy, type Door, handshake } from "./bridge-proxy.ts";
import { TestAuthority } from "./certs.ts";
import { RawClient } from "./http-client.ts";
import { within } from "./eventually.ts";

/** What an agent asks for; a host as it writes it, an address in brackets where it is IPv6. */
export interface Destination {
  readonly host: string;
  /** That of the surface's origin when absent. */
  readonly port?: number;
  readonly path?: string;
}

/** How far it came: to the origin, or to a refusal by the proxy. */
export type Arrival =
  | { readonly arrived: true; readonly path: string }
  | { readonly arrived: false; readonly status: number; readonly text: string };

/** One way out. A surface that captures connections would dial the address itself and speak as the agent does. */
export interface EgressSurface {
  readonly name: string;
  /** Whether the proxy sees the requests. */
  readonly seesRequests: boolean;
  reach(destination: Destination): Promise<Arrival>;
}

/** Origins in the clear and with TLS that count who comes; both answer upgrades. */
export class CountingOrigins {
  readonly authority: TestAuthority;
  readonly plain: Server;
  readonly tls: Server;
  /** Responds to lines of a protocol of its own. */
  readonly raw = createTcp((socket) => {
    socket.on("error", () => undefined);
    socket.on("data", (line: Buffer) => {
      const body = `path=${line.toString().trim()}`;
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    });
  });
  connections = 0;

  private constructor(authority: TestAuthority, plain: Server, tls: Server) {
    this.authority = authority;
    this.plain = plain;
    this.tls = tls;
    for (const server of [plain, tls, this.raw])
      server.on("connection", () => (this.connections += 1));
  }

  static async start(names: readonly string[]): Promise<CountingOrigins> {
    const authority = await TestAuthority.create();
    const plain = createHttp();
    const tls = createHttps(await authority.server(names));
    for (const server of [plain, tls]) {
      server.on("request", (request, response) => {
        response.end(`path=${request.url ?? ""}`);
      });
      server.on("upgrade", (request: { readonly url?: string }, socket: Duplex) => {
        socket.on("error", () => undefined);
        socket.end(
          `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Path: ${request.url ?? ""}\r\n\r\n`,
        );
      });
    }
    const origins = new CountingOrigins(authority, plain, tls);
    for (const server of [plain, tls, origins.raw]) {
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
    }
    return origins;
  }

  get plainPort(): number {
    return (this.plain.address() as AddressInfo).port;
  }

  get tlsPort(): number {
    return (this.tls.address() as AddressInfo).port;
  }

  get rawPort(): number {
    return (this.raw.address() as AddressInfo).port;
  }

  close(): void {
    for (const server of [this.plain, this.tls, this.raw]) server.close();
  }
}

const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

/** Every surface of a proxy whose bridge opens the port of the TLS origin. */
export function surfacesOf(proxy: BridgeProxy, origins: CountingOrigins): EgressSurface[] {
  const { plainPort, tlsPort, rawPort } = origins;
  const plain = (name: string, fields: string): EgressSurface => ({
    name,
    seesRequests: true,
    reach: async ({ host, port = plainPort, path = "/" }) =>
      ask(
        await proxy.dial(),
        `GET http://${host}:${port}${path} HTTP/1.1\r\nHost: ${host}:${port}\r\n${fields}\r\n`,
      ),
  });
  const bridged = (name: string, fields: string, door: Door = "CONNECT"): EgressSurface => ({
    name,
    seesRequests: true,
    reach: async ({ host, port = tlsPort, path = "/" }) => {
      const authority = `${host}:${port}`;
      const { text, socket, status } = await proxy.enter(door, authority);
      if (status !== 200) return { arrived: false, status, text };
      const secured = await handshake(
        socket,
        canonical(authority),
        {
          ca: proxy.ca,
          ALPNProtocols: ["http/1.1"],
          checkServerIdentity: () => undefined,
        },
        serverName(host),
      );
      return ask(secured, `GET ${path} HTTP/1.1\r\nHost: ${authority}\r\n${fields}\r\n`);
    },
  });
  const tunnelled = (
    name: string,
    seesRequests: boolean,
    textOf: (path: string, authority: string) => string,
    door: Door = "CONNECT",
  ): EgressSurface => ({
    name,
    seesRequests,
    reach: async ({ host, port = seesRequests ? plainPort : rawPort, path = "/" }) => {
      const authority = `${host}:${port}`;
      const { text, socket, status } = await proxy.enter(door, authority);
      if (status !== 200) return { arrived: false, status, text };
      return ask(socket, textOf(path, authority));
    },
  });
  const requestIn = (fields: string) => (path: string, authority: string) =>
    `GET ${path} HTTP/1.1\r\nHost: ${authority}\r\n${fields}\r\n`;
  return [
    plain("plain HTTP", ""),
    plain("WebSocket", upgrade),
    tunnelled("CONNECT", false, (path) => `${path}\r\n`),
    tunnelled("plain HTTP in a CONNECT", true, requestIn("")),
    tunnelled("WebSocket in a CONNECT", true, requestIn(upgrade)),
    plainHttp2Surface(proxy, plainPort),
    bridged("bridged HTTP/1.1", ""),
    bridged("bridged WebSocket", upgrade),
    http2Surface(proxy, tlsPort),
    ...(["SOCKS5", "HTTP/2 CONNECT"] as const).flatMap((door) => [
      tunnelled(door, false, (path) => `${path}\r\n`, door),
      tunnelled(`plain HTTP in ${door}`, true, requestIn(""), door),
      tunnelled(`WebSocket in ${door}`, true, requestIn(upgrade), door),
      bridged(`bridged HTTP/1.1 in ${door}`, "", door),
      bridged(`bridged WebSocket in ${door}`, upgrade, door),
    ]),
  ];
}

/** A client that knows that the forward port speaks HTTP/2. */
function plainHttp2Surface(proxy: BridgeProxy, plainPort: number): EgressSurface {
  return {
    name: "plain HTTP/2",
    seesRequests: true,
    reach: async ({ host, port = plainPort, path = "/" }) => {
      const session = connectHttp2(proxy.url);
      session.on("error", () => undefined);
      const fields = { ":path": path, ":authority": `${host}:${port}` };
      // nghttp2 resets a stream whose authority is none.
      return arrivalIn(session, fields).catch((error: unknown) => {
        if (!String(error).includes("NGHTTP2_PROTOCOL_ERROR")) throw error;
        return { arrived: false, status: 400, text: "reset" };
      });
    },
  };
}

async function arrivalIn(
  session: ClientHttp2Session,
  fields: Readonly<Record<string, string>>,
): Promise<Arrival> {
  try {
    const stream = session.request(fields);
    let text = "";
    stream.setEncoding("utf8").on("data", (part: string) => (text += part));
    const [head] = (await within("an answer", once(stream, "response"))) as [
      Readonly<Record<string, unknown>>,
    ];
    await within("the end of the answer", once(stream, "end"));
    return arrivalOf(Number(head[":status"]), text);
  } finally {
    session.destroy();
  }
}

function http2Surface(proxy: BridgeProxy, tlsPort: number): EgressSurface {
  return {
    name: "bridged HTTP/2",
    seesRequests: true,
    reach: async ({ host, port = tlsPort, path = "/" }) => {
      const authority = `${host}:${port}`;
      const { answer, socket, status } = await proxy.connect(authority);
      if (answer !== undefined) return { arrived: false, status, text: answer.text };
      socket.destroy();
      const sni = serverName(host);
      const session = await proxy.http2(authority, {
        checkServerIdentity: () => undefined,
        ...(sni === undefined ? {} : { sni }),
      });
      return arrivalIn(session, { ":path": path, ":authority": authority });
    },
  };
}

async function ask(socket: Duplex, request: string): Promise<Arrival> {
  const wire = new RawClient(socket);
  try {
    wire.send(request);
    const head = await wire.reader.until("\r\n\r\n");
    const status = Number(head.split(" ")[1]);
    const switched = /^x-path: (.*)\r$/im.exec(head)?.[1];
    if (status === 101 && switched !== undefined) return { arrived: true, path: switched };
    const length = Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0);
    const text = (await wire.reader.exactly(length)).toString();
    return arrivalOf(status, text);
  } finally {
    socket.destroy();
  }
}

function arrivalOf(status: number, text: string): Arrival {
  if (status === 200 && text.startsWith("path=")) return { arrived: true, path: text.slice(5) };
  return { arrived: false, status, text };
}

/** Clients send no server name with an address, however it is spelt. */
function serverName(host: string): string | undefined {
  return /^[\d[]/.test(host) ? "" : undefined;
}

/** A name that TLS clients can put into their hello. */
function canonical(authority: string): string {
  return authority.toLowerCase().replace(/\.(?=:\d+$)/, "");
}
