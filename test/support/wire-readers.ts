/** The same bytes, read as requests by our parser and by the one that node:http stands on. */
import { createRequire } from "node:module";
import { MalformedMessage } from "../../src/wire/malformed.ts";
import { ServerConnection } from "../../src/wire/server-connection.ts";
import type { ServerExchange } from "../../src/wire/server-exchange.ts";
import { MemorySocket } from "./memory-socket.ts";

/** One request as a parser reads it. */
export interface ReadRequest {
  readonly method: string;
  readonly target: string;
  readonly version: string;
  readonly fields: readonly string[];
  body: string;
  isWhole: boolean;
}

/** What a parser makes of the bytes of one connection. */
export interface Reading {
  readonly requests: ReadRequest[];
  /** Why it reads no further, where it refused something. */
  refused: string | undefined;
}

export const wireLimits = {
  maxHeaderBytes: 16_384,
  maxHeaders: 100,
  headerTimeoutMs: 60_000,
  keepAliveTimeoutMs: 60_000,
  maxRequestsPerConnection: 0,
};

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Every request is answered when its body is whole, so that the next one is read. */
export async function readOurs(pieces: readonly Buffer[]): Promise<Reading> {
  const reading: Reading = { requests: [], refused: undefined };
  const socket = new MemorySocket();
  let isOver = false;
  const answer = (exchange: ServerExchange): void => {
    exchange.response.writeHead(200, ["Content-Length", "0"]);
    exchange.end();
  };
  const onRequest = (exchange: ServerExchange): void => {
    const { method, target, httpVersion: version, rawHeaders: fields } = exchange.head;
    const request = { method, target, version, fields, body: "", isWhole: false };
    reading.requests.push(request);
    const { body } = exchange;
    const end = (): void => {
      request.isWhole = true;
      answer(exchange);
    };
    if (body === undefined) {
      end();
      return;
    }
    body.open({
      data: (chunk) => {
        request.body += chunk.toString("latin1");
        return true;
      },
      end,
      fail: (error) => {
        if (!isOver) reading.refused ??= error.message;
        socket.destroy();
      },
    });
  };
  void new ServerConnection(
    socket.asSocket,
    {
      onRequest,
      onConnect: (head) => {
        const { method, target, httpVersion: version, rawHeaders: fields } = head;
        reading.requests.push({ method, target, version, fields, body: "", isWhole: true });
      },
      onBroken: (_connection, why) => {
        reading.refused ??= why instanceof MalformedMessage ? why.message : why;
      },
      onDetached: () => undefined,
      onClosed: () => undefined,
    },
    wireLimits,
  );
  for (const piece of pieces) {
    if (socket.destroyed) break;
    socket.give(piece);
    await turn();
  }
  for (let idle = 0; idle < 3; idle += 1) await turn();
  isOver = true;
  socket.destroy();
  await turn();
  return reading;
}

interface Llhttp {
  initialize(type: number, resource: object, maxHeaderSize: number, lenientFlags: number): void;
  execute(bytes: Buffer): number | (Error & { readonly reason?: string });
  close(): void;
  [callback: number]: (...args: never[]) => unknown;
}

const { HTTPParser, methods } = createRequire(import.meta.url)("_http_common") as {
  readonly HTTPParser: {
    new (): Llhttp;
    readonly REQUEST: number;
    readonly kOnHeaders: number;
    readonly kOnHeadersComplete: number;
    readonly kOnBody: number;
    readonly kOnMessageComplete: number;
  };
  readonly methods: readonly string[];
};

/** As node:http sets it up: no lenient flag. */
export function readLlhttp(pieces: readonly Buffer[]): Reading {
  const reading: Reading = { requests: [], refused: undefined };
  const parser = new HTTPParser();
  parser.initialize(HTTPParser.REQUEST, {}, wireLimits.maxHeaderBytes, 0);
  let early: string[] = [];
  let earlyTarget = "";
  let current: ReadRequest | undefined;
  let isOver = false;
  parser[HTTPParser.kOnHeaders] = (fields: string[], url: string) => {
    early.push(...fields);
    earlyTarget += url;
  };
  parser[HTTPParser.kOnHeadersComplete] = (
    major: number,
    minor: number,
    fields: string[] | undefined,
    method: number,
    url: string,
  ) => {
    current = {
      method: methods[method] ?? "",
      target: earlyTarget + (url ?? ""),
      version: `${major}.${minor}`,
      fields: [...early, ...(fields ?? [])],
      body: "",
      isWhole: false,
    };
    early = [];
    earlyTarget = "";
    reading.requests.push(current);
    if (current.method === "CONNECT") {
      current.isWhole = true;
      isOver = true;
      return 2;
    }
    return 0;
  };
  parser[HTTPParser.kOnBody] = (bytes: Buffer) => {
    if (current !== undefined) current.body += bytes.toString("latin1");
  };
  parser[HTTPParser.kOnMessageComplete] = () => {
    if (current !== undefined) current.isWhole = true;
    // What came since the head was a trailer section, with the target of its request.
    early = [];
    earlyTarget = "";
  };
  for (const piece of pieces) {
    const read = parser.execute(piece);
    if (read instanceof Error) {
      reading.refused = read.reason ?? read.message;
      break;
    }
    if (isOver) break;
  }
  parser.close();
  return reading;
}
