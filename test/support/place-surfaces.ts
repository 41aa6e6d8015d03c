/** The ways in which a request can come to the proxy, each to an origin that remembers what it was sent. */
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { BridgeProxy } from "./bridge-proxy.ts";
import { within } from "./eventually.ts";
import { RawClient } from "./http-client.ts";
import { readAll, type Seen, type TlsOrigin } from "./tls-origin.ts";

/** One request of a client. */
export interface Sent {
  readonly host: string;
  readonly method?: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** What the client got for it. */
export interface Got {
  readonly status: number;
  readonly headers: string;
  readonly text: string;
}

/** One way in. */
export interface PlaceSurface {
  readonly name: string;
  /** The port of the origin that requests on it reach. */
  port(): number;
  send(proxy: BridgeProxy, sent: Sent): Promise<Got>;
}

/** What reached either origin under a path that the test made up. */
export class BothOrigins {
  readonly tls: TlsOrigin;
  readonly plain: Server;
  readonly seen: Seen[] = [];
  answer: (seen: Seen, response: ServerResponse) => void = (_seen, response) => response.end("ok");

  private constructor(tls: TlsOrigin, plain: Server) {
    this.tls = tls;
    this.plain = plain;
  }

  static async start(tls: TlsOrigin): Promise<BothOrigins> {
    const origins = new BothOrigins(tls, createServer());
    const take = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      const { method = "", url = "", headers, httpVersion } = request;
      const seen: Seen = {
        method,
        url,
        headers,
        httpVersion,
        host: headers.host ?? "",
        body: Buffer.alloc(0),
        trailers: {},
        isAborted: false,
      };
      await readAll(request, seen);
      origins.seen.push(seen);
      origins.answer(seen, response);
    };
    origins.plain.on("request", (request, response) => void take(request, response));
    tls.server.removeAllListeners("request");
    tls.server.on("request", (request: unknown, response: unknown) => {
      void take(request as IncomingMessage, response as ServerResponse);
    });
    origins.plain.listen(0, "127.0.0.1");
    await once(origins.plain, "listening");
    return origins;
  }

  get plainPort(): number {
    return (this.plain.address() as AddressInfo).port;
  }

  /** The last request, and its whole text. */
  get last(): Seen & { readonly all: string } {
    const seen = this.seen.at(-1);
    if (seen === undefined) throw new Error("nothing has come");
    const all = `${seen.url}\n${JSON.stringify(seen.headers)}\n${seen.body.toString()}`;
    return { ...seen, all };
  }

  async close(): Promise<void> {
    this.plain.closeAllConnections();
    this.plain.close();
    await this.tls.close();
  }
}

function fieldsOf({ headers = {}, body }: Sent): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  if (body !== undefined) lines.push(`Content-Length: ${Buffer.byteLength(body)}\r\n`);
  return lines.join("");
}

async function exchange(wire: RawClient, sent: Sent, target: string, host: string): Promise<Got> {
  const { method = sent.body === undefined ? "GET" : "POST", body = "" } = sent;
  try {
    wire.send(`${method} ${target} HTTP/1.1\r\nHost: ${host}\r\n${fieldsOf(sent)}\r\n`);
    wire.send(Buffer.from(body));
    const { status, head, text } = await within("an answer", wire.response(method));
    return { status, headers: head.text, text };
  } finally {
    wire.close();
  }
}

/** Absolute form, plain HTTP in a CONNECT, and both protocols in the bridge. */
export function placeSurfaces(origins: () => BothOrigins): PlaceSurface[] {
  const plain = (): number => origins().plainPort;
  const tls = (): number => origins().tls.port;
  return [
    {
      name: "absolute form",
      port: plain,
      send: async (proxy, sent) => {
        const host = `${sent.host}:${plain()}`;
        const wire = new RawClient(await proxy.dial());
        return exchange(wire, sent, `http://${host}${sent.path}`, host);
      },
    },
    {
      name: "plain HTTP in a CONNECT",
      port: plain,
      send: async (proxy, sent) => {
        const host = `${sent.host}:${plain()}`;
        return exchange(new RawClient(await proxy.tunnel(host)), sent, sent.path, host);
      },
    },
    {
      name: "bridged HTTP/1.1",
      port: tls,
      send: async (proxy, sent) => {
        const host = `${sent.host}:${tls()}`;
        return exchange(await proxy.http1(host), sent, sent.path, host);
      },
    },
    {
      name: "bridged HTTP/2",
      port: tls,
      send: async (proxy, sent) => {
        const authority = `${sent.host}:${tls()}`;
        const session = await proxy.http2(authority);
        try {
          const { method = sent.body === undefined ? "GET" : "POST" } = sent;
          const stream = session.request({
            ":method": method,
            ":path": sent.path,
            ":authority": authority,
            ...sent.headers,
          });
          stream.end(sent.body);
          let text = "";
          stream.setEncoding("utf8").on("data", (part: string) => (text += part));
          const [head] = (await within("an answer", once(stream, "response"))) as [
            Readonly<Record<string, unknown>>,
          ];
          await within("its end", once(stream, "end"));
          return { status: Number(head[":status"]), headers: JSON.stringify(head), text };
        } finally {
          session.destroy();
        }
      },
    },
  ];
}
