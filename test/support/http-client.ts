/** A raw HTTP/1.1 client: sends whatever bytes it is given and shows exactly what comes back. */
import { connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { ByteReader } from "./byte-reader.ts";
import { within } from "./eventually.ts";
import { readBody, readHead, type Field, type MessageHead } from "./http-message.ts";

/** Where something listens. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

/** A whole answer. */
export interface RawResponse {
  readonly status: number;
  readonly head: MessageHead;
  readonly body: Buffer;
  readonly text: string;
  readonly trailers: readonly Field[];
  readonly chunks?: readonly number[];
  /** Heads of the 1xx answers that came before. */
  readonly interim: readonly MessageHead[];
  header(name: string): string | undefined;
  /** The body as JSON. */
  json(): unknown;
}

/** What to ask, for {@link request}. */
export interface RequestShape {
  readonly method?: string;
  readonly target: string;
  readonly headers?: readonly Field[] | Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

export function statusOf(head: MessageHead): number {
  return Number(head.startLine.split(" ")[1]);
}

/** How long {@link RawClient.sees} and {@link RawClient.ended} wait for the next bytes. */
const watchMs = 15_000;

/** One connection, over TCP or whatever carries bytes. Bytes that nobody asks for stay in it: that is back-pressure. */
export class RawClient<Carrier extends Duplex = Socket> {
  readonly socket: Carrier;
  readonly reader: ByteReader;
  readonly closed: Promise<void>;
  #seen = "";

  constructor(socket: Carrier) {
    this.socket = socket;
    this.reader = new ByteReader(socket);
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()));
  }

  static async connect(address: Address): Promise<RawClient> {
    const socket = connect({ host: address.host, port: address.port, allowHalfOpen: true });
    socket.setNoDelay(true);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return new RawClient(socket);
  }

  /** Over a connection that is open. */
  static over(socket: Socket): RawClient {
    return new RawClient(socket);
  }

  /** Sends text (one byte per character) or bytes as they are. */
  send(bytes: string | Uint8Array): this {
    this.socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
    return this;
  }

  /** Sends one byte per packet, as far as the kernel allows. */
  async dribble(text: string): Promise<void> {
    for (const byte of Buffer.from(text, "latin1")) {
      await new Promise<void>((resolve) => this.socket.write(Buffer.of(byte), () => resolve()));
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Reads the next final head, collecting the 1xx ones before it. */
  async head(): Promise<{ head: MessageHead; interim: MessageHead[] }> {
    const interim: MessageHead[] = [];
    for (;;) {
      const head = await readHead(this.reader);
      if (head === undefined) throw new Error("the connection ended without an answer");
      const status = statusOf(head);
      if (status >= 200 || status === 101) return { head, interim };
      interim.push(head);
    }
  }

  /** Reads one whole answer to a request of this method. */
  async response(method = "GET"): Promise<RawResponse> {
    const { head, interim } = await this.head();
    const status = statusOf(head);
    const hasBody =
      method !== "HEAD" &&
      status !== 204 &&
      status !== 304 &&
      status !== 101 &&
      !(method === "CONNECT" && status === 200);
    const body = hasBody
      ? await readBody(this.reader, head, true)
      : { bytes: Buffer.alloc(0), trailers: [] };
    const text = body.bytes.toString("utf8");
    return {
      status,
      head,
      body: body.bytes,
      text,
      trailers: body.trailers,
      ...("chunks" in body && body.chunks !== undefined ? { chunks: body.chunks } : {}),
      interim,
      header: (name) => head.header(name),
      json: () => JSON.parse(text) as unknown,
    };
  }

  /** Sends a request head (and body) made of its parts; a body gets its Content-Length. */
  write(shape: RequestShape): void {
    this.send(renderRequest(shape));
  }

  async ask(shape: RequestShape): Promise<RawResponse> {
    this.write(shape);
    return this.response(shape.method);
  }

  /** Sends a request whose head is written by hand, and reads its response. */
  async exchange(head: string, body: string | Buffer = ""): Promise<RawResponse> {
    this.send(head).send(Buffer.from(body));
    return this.response(head.split(" ")[0]);
  }

  /** What {@link sees} and {@link ended} have read. */
  get seen(): string {
    return this.#seen;
  }

  /** How the connection broke, if it did. */
  get failure(): Error | undefined {
    return this.reader.error;
  }

  /** Everything so far, once it has the text so many times or the connection has ended. */
  async sees(text: string, times = 1): Promise<string> {
    while (this.#seen.split(text).length <= times && (await this.#watch()));
    return this.#seen;
  }

  /** Everything until the other side ended or cut the connection. */
  async ended(): Promise<string> {
    while (await this.#watch());
    return this.#seen;
  }

  async #watch(): Promise<boolean> {
    const bytes = await this.reader.some(watchMs);
    if (bytes !== undefined) this.#seen += bytes.toString("latin1");
    return bytes !== undefined;
  }

  /** No more bytes from here; the other direction stays open. */
  end(): void {
    this.socket.end();
  }

  /** Resolves when the proxy has closed the connection. */
  async untilClosed(limitMs = 8000): Promise<void> {
    this.socket.resume();
    this.socket.once("end", () => this.socket.end());
    if (this.socket.readableEnded) this.socket.end();
    await within("the connection is closed", this.closed, limitMs);
  }

  close(): void {
    this.socket.destroy();
  }
}

/** The bytes of a request; a Host line is added for absolute-form targets that have none. */
export function renderRequest(shape: RequestShape): Buffer {
  const { method = "GET", target, body } = shape;
  const given = shape.headers ?? [];
  const fields: Field[] = Array.isArray(given)
    ? [...(given as readonly Field[])]
    : Object.entries(given as Readonly<Record<string, string>>);
  const has = (name: string): boolean =>
    fields.some(([field]) => field.toLowerCase() === name.toLowerCase());
  if (!has("host")) {
    const host = /^[a-z]+:\/\/([^/?#]*)/.exec(target)?.[1];
    fields.unshift(["Host", host ?? (method === "CONNECT" ? target : "agent.test")]);
  }
  if (body !== undefined && !has("content-length") && !has("transfer-encoding")) {
    fields.push(["Content-Length", String(Buffer.byteLength(body))]);
  }
  const lines = fields.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const head = Buffer.from(`${method} ${target} HTTP/1.1\r\n${lines}\r\n`, "latin1");
  return body === undefined ? head : Buffer.concat([head, Buffer.from(body)]);
}

/** One request on a connection of its own. */
export async function request(address: Address, shape: RequestShape): Promise<RawResponse> {
  const client = await RawClient.connect(address);
  try {
    return await client.ask(shape);
  } finally {
    client.close();
  }
}

/** A GET on a connection of its own. */
export function get(
  address: Address,
  target: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<RawResponse> {
  return request(address, { target, headers });
}

/**
 * Sends bytes on a connection of its own and reads all that comes back until the proxy closes or falls silent.
 *
 * The sending half stays open unless `thenEnd`: a proxy may take its end for a client that has left.
 */
export async function exchangeBytes(
  address: Address,
  bytes: string | Buffer,
  options: { readonly thenEnd?: boolean; readonly silenceMs?: number } = {},
): Promise<string> {
  const client = await RawClient.connect(address);
  const parts: Buffer[] = [];
  try {
    client.send(bytes);
    if (options.thenEnd === true) client.end();
    const silenceMs = options.silenceMs ?? 1500;
    for (;;) {
      const part = await client.reader.some(silenceMs).catch(() => undefined);
      if (part === undefined) return Buffer.concat(parts).toString("latin1");
      parts.push(part);
    }
  } finally {
    client.close();
  }
}

/** Opens a tunnel; the client of a 200 is the tunnel. */
export async function openTunnel(
  address: Address,
  authority: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<{ client: RawClient; answer: RawResponse }> {
  const client = await RawClient.connect(address);
  client.write({ method: "CONNECT", target: authority, headers });
  return { client, answer: await client.response("CONNECT") };
}
