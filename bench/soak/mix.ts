/** The mixed requests of a soak: every kind of traffic, each answer with the digest that is due. */
import { randomBytes } from "node:crypto";
import http from "node:http";
import http2 from "node:http2";
import net, { type Socket } from "node:net";
import tls from "node:tls";
import { openTunnel } from "../../test/support/http-client.ts";
import type { ProxyProcess } from "../../test/support/proxy.ts";
import { openSocks } from "../../test/support/socks-client.ts";
import type { Ground } from "./ground.ts";
import type { Answer, Ledger } from "./ledger.ts";
import type { Pace } from "./pace.ts";
import { bytesOf, digestOf, eventsOf, toolAnswer } from "./parties.ts";

const streamsPerSession = 200;

/** `work` for every number below `count`, or until the function of the next one says that it is over; `width` at a time. */
export async function inParallel(
  count: number | ((index: number) => boolean),
  width: number,
  work: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const isOver = (): boolean => (typeof count === "number" ? next >= count : count(next));
  const worker = async (): Promise<void> => {
    while (!isOver()) {
      const index = next;
      next += 1;
      await work(index);
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
}

function cut(error: unknown): Answer {
  const { code, message } = error as NodeJS.ErrnoException;
  return { status: 0, why: code === undefined ? message : `${code} ${message}` };
}

/** One request over node:http; a cut connection is an answer of status 0, a client that left one of -1. */
export function ask(
  options: http.RequestOptions,
  body?: Buffer | string,
  leaveMs?: number,
): Promise<Answer> {
  return new Promise((resolve) => {
    const request = http.request({ host: "127.0.0.1", ...options }, (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("error", (error) => resolve(cut(error)));
      response.on("end", () => {
        const body = Buffer.concat(parts);
        const status = response.statusCode ?? 0;
        const text = status >= 400 ? body.toString() : undefined;
        resolve({ status, digest: digestOf(body), head: response.headers, text });
      });
    });
    if (leaveMs !== undefined) {
      const timer = setTimeout(() => {
        resolve({ status: -1 });
        request.destroy();
      }, leaveMs);
      request.once("close", () => clearTimeout(timer));
    }
    request.on("error", (error) => resolve(cut(error)));
    request.end(body);
  });
}

/** Connections to an origin through the bridge, kept as those of any agent. */
class BridgedAgent extends http.Agent {
  readonly #proxy: ProxyProcess;
  readonly #authority: string;

  constructor(proxy: ProxyProcess, authority: string) {
    super({ keepAlive: true, maxSockets: 8 });
    this.#proxy = proxy;
    this.#authority = authority;
  }

  override createConnection(
    _options: http.ClientRequestArgs,
    callback?: (error: Error | null, stream: Socket) => void,
  ): undefined {
    void secured(this.#proxy, this.#authority, "http/1.1").then(
      (socket) => callback?.(null, socket),
      (error: unknown) => callback?.(error as Error, new net.Socket()),
    );
  }
}

/** TLS with the bridge, through a tunnel to this authority. */
export async function secured(
  proxy: ProxyProcess,
  authority: string,
  protocol: string,
): Promise<tls.TLSSocket> {
  const raw = net.connect(proxy.forward.port, proxy.forward.host);
  raw.on("error", () => undefined);
  raw.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`);
  const head = await new Promise<string>((resolve) => {
    raw.once("data", (chunk: Buffer) => resolve(chunk.toString("latin1")));
    raw.once("close", () => resolve(""));
  });
  if (!head.startsWith("HTTP/1.1 200")) throw new Error(`CONNECT: ${head.slice(0, 12)}`);
  return new Promise((resolve, reject) => {
    const socket = tls.connect({
      socket: raw,
      ALPNProtocols: [protocol],
      ...(/^\d/.test(authority) ? {} : { servername: authority.replace(/:\d+$/, "") }),
      rejectUnauthorized: false,
    });
    socket.once("error", reject);
    socket.once("secureConnect", () => {
      socket.on("error", () => undefined);
      resolve(socket);
    });
  });
}

/** The streams of one session. */
interface Streams {
  readonly session: Promise<http2.ClientHttp2Session>;
  begun: number;
  open: number;
}

/** What asks, with connections that are kept. */
export class Mix {
  readonly #proxy: ProxyProcess;
  readonly #ground: Ground;
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: 32 });
  readonly #bridged: BridgedAgent;
  #streams: Streams | undefined;
  #asked = -1;
  readonly #tokens: readonly string[];
  readonly counts = new Map<string, number>();

  private constructor(ground: Ground, proxy: ProxyProcess, tokens: readonly string[]) {
    this.#ground = ground;
    this.#proxy = proxy;
    this.#tokens = tokens;
    this.#bridged = new BridgedAgent(proxy, this.#secure);
  }

  static async start(ground: Ground, proxy: ProxyProcess): Promise<Mix> {
    const tokens = Array.from({ length: 16 }, (_, at) =>
      ground.parties.token(`user-${at}`, { from: -7_200 }),
    );
    return new Mix(ground, proxy, await Promise.all(tokens));
  }

  get #secure(): string {
    return `127.0.0.1:${this.#ground.parties.securePort}`;
  }

  /** What one cycle asks, `count` requests or as many as there is time for; booked. */
  async run(pace: Pace, count: number, width: number, ledger: Ledger): Promise<void> {
    const isOver = (asked: number): boolean => pace.isOver(asked, count, 2 * this.#kinds.length);
    await inParallel(isOver, width, () => {
      this.#asked += 1;
      return this.one(this.#asked, ledger);
    });
  }

  /** Asks on until the signal comes. */
  async until(signal: AbortSignal, width: number, ledger: Ledger): Promise<void> {
    await inParallel(
      () => signal.aborted,
      width,
      () => {
        this.#asked += 1;
        return this.one(this.#asked, ledger);
      },
    );
  }

  /** One request, of the kind that its number says. */
  async one(index: number, ledger: Ledger): Promise<void> {
    const kinds = this.#kinds;
    const [kind, statuses, asked] = kinds[index % kinds.length] ?? kinds[0];
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
    const { answer, due } = await asked(index).catch((error: unknown) => ({
      answer: cut(error),
      due: undefined,
    }));
    if (kind === "MCP, refused") ledger.refusalsSeen += 1;
    ledger.answered(kind, answer, statuses, due === undefined ? undefined : digestOf(due));
  }

  readonly #kinds: readonly [Kind, ...Kind[]] = [
    ["forward", [200], (seed) => this.#get(`/bytes/${seed}`, seed)],
    ["forward", [200], (seed) => this.#post(seed)],
    ["reverse, JWT", [200], (seed) => this.#reverse(seed)],
    ["bridge, HTTP/1.1", [200], (seed) => this.#bridge(seed)],
    ["exchange", [200], (seed) => this.#exchange(seed)],
    ["bridge, HTTP/2", [200], (seed) => this.#stream(seed)],
    ["MCP, allowed", [200], (seed) => this.#mcp(seed, "add")],
    ["forward", [200], (seed) => this.#get(`/bytes/${seed}`, seed)],
    ["CONNECT", [200], (seed) => this.#tunnel(seed)],
    ["MCP, refused", [200], (seed) => this.#mcp(seed, "exec")],
    ["server-sent events", [200], (seed) => this.#events(seed)],
    ["SOCKS5", [200], (seed) => this.#socks(seed)],
    ["WebSocket", [200], (seed) => this.#webSocket(seed)],
    ["reverse, no token", [401], () => this.#unnamed()],
  ];

  close(): void {
    this.#agent.destroy();
    this.#bridged.destroy();
    void this.#streams?.session.then((session) => session.destroy()).catch(() => undefined);
    this.#streams = undefined;
  }

  async #get(path: string, seed: number, host = "127.0.0.1", headers = {}): Promise<Asked> {
    const authority = `${host}:${this.#ground.parties.origin.port}`;
    const answer = await ask({
      port: this.#proxy.forward.port,
      path: `http://${authority}${path}`,
      agent: this.#agent,
      headers: { Host: authority, ...headers },
    });
    return { answer, due: bytesOf(seed) };
  }

  async #post(seed: number): Promise<Asked> {
    const authority = `127.0.0.1:${this.#ground.parties.origin.port}`;
    const body = bytesOf(seed);
    const answer = await ask(
      {
        port: this.#proxy.forward.port,
        path: `http://${authority}/echo`,
        method: "POST",
        agent: this.#agent,
        headers: { Host: authority, "Content-Length": body.length },
      },
      body,
    );
    return { answer, due: body };
  }

  #exchange(seed: number): Promise<Asked> {
    const headers = { Authorization: `Bearer ${this.#tokens[seed % this.#tokens.length]}` };
    return this.#get(`/bytes/${seed}`, seed, "exchanged.test", headers);
  }

  async #events(seed: number): Promise<Asked> {
    return { ...(await this.#get(`/sse/${seed}`, seed)), due: eventsOf(seed) };
  }

  async #reverse(seed: number): Promise<Asked> {
    const answer = await ask({
      port: this.#proxy.reverse.port,
      path: `/bytes/${seed}`,
      agent: this.#agent,
      headers: { Authorization: `Bearer ${this.#tokens[seed % this.#tokens.length]}` },
    });
    return { answer, due: bytesOf(seed) };
  }

  async #unnamed(): Promise<Asked> {
    const answer = await ask({ port: this.#proxy.reverse.port, path: "/", agent: this.#agent });
    return { answer, due: undefined };
  }

  async #mcp(seed: number, tool: string): Promise<Asked> {
    const authority = `mcp.test:${this.#ground.parties.origin.port}`;
    const params = { name: tool, arguments: { a: seed, b: 1 } };
    const body = JSON.stringify({ jsonrpc: "2.0", id: seed, method: "tools/call", params });
    const answer = await ask(
      {
        port: this.#proxy.forward.port,
        path: `http://${authority}/mcp`,
        method: "POST",
        agent: this.#agent,
        headers: {
          Host: authority,
          "Content-Type": "application/json",
          Accept: "application/json, text/event-stream",
          "Content-Length": body.length,
        },
      },
      body,
    );
    if (tool === "add") return { answer, due: toolAnswer(seed) };
    // A refusal is a response of JSON-RPC; the tool's own would say that the call went through.
    const wentThrough = answer.digest === digestOf(toolAnswer(seed));
    return { answer: wentThrough ? { status: 0 } : answer, due: undefined };
  }

  async #bridge(seed: number): Promise<Asked> {
    const options = { path: `/bytes/${seed}`, headers: { Host: this.#secure } };
    return { answer: await ask({ ...options, agent: this.#bridged }), due: bytesOf(seed) };
  }

  async #stream(seed: number): Promise<Asked> {
    if (this.#streams === undefined || this.#streams.begun === streamsPerSession) {
      this.#streams = { session: this.#newSession(), begun: 0, open: 0 };
    }
    const streams = this.#streams;
    streams.begun += 1;
    streams.open += 1;
    const session = await streams.session;
    const stream = session.request({ ":path": `/bytes/${seed}` });
    const answer = await new Promise<Answer>((resolve) => {
      const parts: Buffer[] = [];
      let status = 0;
      stream.on("response", (head) => (status = Number(head[":status"])));
      stream.on("data", (part: Buffer) => parts.push(part));
      stream.on("error", (error) => resolve(cut(error)));
      stream.on("end", () => resolve({ status, digest: digestOf(Buffer.concat(parts)) }));
      stream.end();
    });
    streams.open -= 1;
    // Node's client queues streams above the peer's limit, and a server refuses those that come behind a GOAWAY.
    if (streams.open === 0 && streams.begun === streamsPerSession) session.close();
    return { answer, due: bytesOf(seed) };
  }

  async #newSession(): Promise<http2.ClientHttp2Session> {
    const socket = await secured(this.#proxy, this.#secure, "h2");
    const session = http2.connect(`https://${this.#secure}`, { createConnection: () => socket });
    session.on("error", () => undefined);
    session.on("close", () => socket.destroy());
    return session;
  }

  async #tunnel(seed: number): Promise<Asked> {
    const authority = `127.0.0.1:${this.#ground.parties.echoPort}`;
    const { client, answer } = await openTunnel(this.#proxy.forward, authority);
    const { status } = answer;
    if (status !== 200) return { answer: { status }, due: undefined };
    return echoed(client, seed);
  }

  async #socks(seed: number): Promise<Asked> {
    const { echoPort } = this.#ground.parties;
    const { client, reply } = await openSocks(this.#proxy.forward, "127.0.0.1", echoPort);
    if (reply !== 0) return { answer: { status: 0 }, due: undefined };
    return echoed(client, seed);
  }

  async #webSocket(seed: number): Promise<Asked> {
    const authority = `127.0.0.1:${this.#ground.parties.origin.port}`;
    const socket = net.connect(this.#proxy.forward.port, "127.0.0.1");
    const payload = bytesOf(seed).subarray(0, 100);
    const mask = randomBytes(4);
    const masked = Buffer.from(payload.map((byte, at) => byte ^ (mask[at % 4] ?? 0)));
    const key = randomBytes(16).toString("base64");
    socket.write(
      `GET http://${authority}/ws HTTP/1.1\r\nHost: ${authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`,
    );
    const answer = await new Promise<Answer>((resolve) => {
      let seen = Buffer.alloc(0);
      let isOpen = false;
      socket.on("error", () => resolve({ status: 0 }));
      socket.on("close", () => resolve({ status: 0 }));
      socket.on("data", (chunk: Buffer) => {
        seen = Buffer.concat([seen, chunk]);
        const headEnd = seen.indexOf("\r\n\r\n");
        if (!isOpen && headEnd !== -1) {
          if (!seen.toString("latin1").startsWith("HTTP/1.1 101")) {
            resolve({ status: Number(seen.toString("latin1", 9, 12)) });
            return;
          }
          isOpen = true;
          seen = seen.subarray(headEnd + 4);
          socket.write(Buffer.concat([Buffer.of(0x82, 0x80 | payload.length), mask, masked]));
        }
        if (isOpen && seen.length >= 2 + payload.length) {
          resolve({ status: 200, digest: digestOf(seen.subarray(2)) });
        }
      });
    });
    socket.destroy();
    return { answer, due: payload };
  }
}

async function echoed(
  client: Awaited<ReturnType<typeof openTunnel>>["client"],
  seed: number,
): Promise<Asked> {
  const due = bytesOf(seed);
  client.send(due);
  const back = await client.reader.exactly(due.length);
  client.close();
  return { answer: { status: 200, digest: digestOf(back) }, due };
}

interface Asked {
  readonly answer: Answer;
  readonly due: Buffer | string | undefined;
}

type Kind = readonly [
  name: string,
  statuses: readonly number[],
  ask: (seed: number) => Promise<Asked>,
];
