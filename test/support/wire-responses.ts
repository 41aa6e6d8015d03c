/** The same bytes, read as the response to one request by our client, by llhttp and by undici. */
import net, { type AddressInfo } from "node:net";
import { createRequire } from "node:module";
import { Pool } from "undici";
import { StallWatch } from "../../src/net/stall-watch.ts";
import { ClientPool } from "../../src/wire/client-pool.ts";
import { MemorySocket } from "./memory-socket.ts";
import { Recorded } from "./wire-client.ts";

/** What a parser makes of a response whose connection ends behind the bytes. */
export interface ReadResponse {
  readonly interim: number[];
  status: number;
  fields: readonly string[];
  body: string;
  isWhole: boolean;
  /** Why it is none, in words of the parser. */
  refused: string | undefined;
  /** The name of the error, where ours threw one. */
  fault?: string | undefined;
}

const maxHeaderBytes = 16_384;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Bytes as our client reads them, each piece in a packet of its own. */
export async function readOurResponse(
  method: string,
  pieces: readonly Buffer[],
): Promise<ReadResponse> {
  const socket = new MemorySocket();
  const watch = new StallWatch(1_000_000);
  const pool = new ClientPool({
    watch,
    limits: {
      responseTimeoutMs: 0,
      streamIdleTimeoutMs: 0,
      maxHeaderBytes,
      maxHeaders: 100,
      idleTimeoutMs: 60_000,
      maxIdleTimeoutMs: 60_000,
    },
    open: () => Promise.resolve(socket.asSocket),
  });
  const handler = new Recorded();
  pool.dispatch({ method, path: "/", headers: ["Host", "a"], body: null }, handler);
  await turn();
  for (const piece of pieces) {
    if (socket.destroyed) break;
    socket.give(piece);
    await turn();
  }
  if (!socket.destroyed) socket.push(null);
  await handler.over;
  pool.destroy();
  watch.close();
  const { interim, status, headers: fields, body, error } = handler;
  const { message: refused, name: fault } =
    error instanceof Error ? error : { message: undefined, name: undefined };
  return { interim, status, fields, body, isWhole: error === undefined, refused, fault };
}

interface Llhttp {
  initialize(type: number, resource: object, maxHeaderSize: number, lenientFlags: number): void;
  execute(bytes: Buffer): number | (Error & { readonly reason?: string });
  finish(): number | undefined | (Error & { readonly reason?: string });
  close(): void;
  [callback: number]: (...args: never[]) => unknown;
}

const { HTTPParser } = createRequire(import.meta.url)("_http_common") as {
  readonly HTTPParser: {
    new (): Llhttp;
    readonly RESPONSE: number;
    readonly kOnHeaders: number;
    readonly kOnHeadersComplete: number;
    readonly kOnBody: number;
    readonly kOnMessageComplete: number;
  };
};

/** As node:http sets it up: no lenient flag. */
export function readLlhttpResponse(method: string, pieces: readonly Buffer[]): ReadResponse {
  const reading: ReadResponse = {
    interim: [],
    status: 0,
    fields: [],
    body: "",
    isWhole: false,
    refused: undefined,
  };
  const parser = new HTTPParser();
  parser.initialize(HTTPParser.RESPONSE, {}, maxHeaderBytes, 0);
  let early: string[] = [];
  let present = 0;
  parser[HTTPParser.kOnHeaders] = (fields: string[]) => {
    early.push(...fields);
  };
  parser[HTTPParser.kOnHeadersComplete] = (
    _major: number,
    _minor: number,
    fields: string[] | undefined,
    _method: number,
    _url: string,
    status: number,
  ) => {
    if (reading.isWhole) return 1;
    present = status;
    if (status < 200) {
      reading.interim.push(status);
      early = [];
      return 1;
    }
    reading.status = status;
    reading.fields = [...early, ...(fields ?? [])];
    early = [];
    return method === "HEAD" ? 1 : 0;
  };
  parser[HTTPParser.kOnBody] = (bytes: Buffer) => {
    if (!reading.isWhole) reading.body += bytes.toString("latin1");
  };
  parser[HTTPParser.kOnMessageComplete] = () => {
    early = [];
    if (present >= 200) reading.isWhole = true;
  };
  for (const piece of pieces) {
    const read = parser.execute(piece);
    if (read instanceof Error) {
      if (!reading.isWhole) reading.refused = read.reason ?? read.message;
      parser.close();
      return reading;
    }
  }
  const last = parser.finish();
  if (last instanceof Error && !reading.isWhole) reading.refused = last.reason ?? last.message;
  parser.close();
  return reading;
}

/** Bytes as undici's client reads them, from a socket. */
export async function readUndiciResponse(method: string, bytes: Buffer): Promise<ReadResponse> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => socket.end(bytes));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const pool = new Pool(`http://127.0.0.1:${port}`, { maxHeaderSize: maxHeaderBytes });
  const reading: ReadResponse = {
    interim: [],
    status: 0,
    fields: [],
    body: "",
    isWhole: false,
    refused: undefined,
  };
  await new Promise<void>((resolve) => {
    pool.dispatch(
      { method, path: "/", headers: ["Host", "a"] },
      {
        onRequestStart: () => undefined,
        onResponseStart: ({ rawHeaders }, status) => {
          if (status < 200) {
            reading.interim.push(status);
            return;
          }
          reading.status = status;
          const raw = Array.isArray(rawHeaders) ? rawHeaders : [];
          // White space around a value is none of it (RFC 9110 section 5.5); undici leaves what is behind it.
          reading.fields = raw.map((text) => text.toString("latin1").replace(/[\t ]+$/, ""));
        },
        onResponseData: (_control, chunk) => {
          reading.body += chunk.toString("latin1");
        },
        onResponseEnd: () => {
          reading.isWhole = true;
          resolve();
        },
        onResponseError: (_control, error) => {
          reading.refused = error.message;
          resolve();
        },
      },
    );
  });
  await pool.destroy();
  server.close();
  return reading;
}
