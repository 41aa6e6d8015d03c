/** HTTP/1.1 keep-alive load: fixed connections, one request in flight on each. */
import { connect } from "node:net";
import type { Socket } from "node:net";

import { Tally } from "./command.ts";
import type { HttpLoad, LoadResult } from "./command.ts";

const HEAD_END = Buffer.from("\r\n\r\n");
const READ_BUFFER_BYTES = 128 * 1024;
const MAX_FAILURES = 200;
const GRACE_MS = 5_000;

interface Head {
  readonly status: number;
  /** -1: chunked. */
  readonly bodyBytes: number;
  readonly closes: boolean;
}

function parseHead(text: string): Head {
  const chunked = /\r\ntransfer-encoding: *chunked/i.test(text);
  const length = /\r\ncontent-length: *(\d+)/i.exec(text)?.[1];
  return {
    status: text.startsWith("HTTP/1.1 ") ? Number(text.slice(9, 12)) : 0,
    bodyBytes: chunked ? -1 : Number(length ?? 0),
    closes: /\r\nconnection: *close/i.test(text),
  };
}

/** Counts the data bytes of a chunked body that arrives in pieces. */
class ChunkedBody {
  dataBytes = 0;
  done = false;
  #line = "";
  #left = 0;
  #trailer = false;

  read(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length && !this.done) {
      if (this.#left > 2) {
        const taken = Math.min(this.#left - 2, bytes.length - at);
        this.dataBytes += taken;
        this.#left -= taken;
        at += taken;
      } else if (this.#left > 0) {
        this.#left -= 1;
        at += 1;
      } else {
        const end = bytes.indexOf(10, at);
        this.#line += bytes.toString("latin1", at, end < 0 ? bytes.length : end);
        at = end < 0 ? bytes.length : end + 1;
        if (end >= 0) {
          this.#endOfLine();
        }
      }
    }
  }

  #endOfLine(): void {
    const line = this.#line.trim();
    this.#line = "";
    if (this.#trailer) {
      this.done = line === "";
      return;
    }
    const size = Number.parseInt(line, 16);
    this.#trailer = size === 0;
    this.#left = size === 0 ? 0 : size + 2;
  }
}

class Connection {
  readonly #load: HttpLoad;
  readonly #request: Buffer;
  readonly #tally: Tally;
  readonly #finish: () => void;
  #socket: Socket | undefined;
  #startedAt = 0;
  #waiting = false;
  #pending: Buffer = Buffer.alloc(0);
  #head: Head | undefined;
  #headText = "";
  #lastHead: Head | undefined;
  #bodySeen = 0;
  #chunks: ChunkedBody | undefined;
  #stopped = false;

  constructor(load: HttpLoad, request: Buffer, tally: Tally, finish: () => void) {
    this.#load = load;
    this.#request = request;
    this.#tally = tally;
    this.#finish = finish;
    this.#open();
  }

  stop(): void {
    this.#stopped = true;
    if (!this.#waiting) {
      this.#end();
    }
  }

  kill(): void {
    this.#stopped = true;
    this.#socket?.destroy();
    this.#end();
  }

  #end(): void {
    this.#socket?.destroy();
    this.#finish();
  }

  #open(): void {
    this.#pending = Buffer.alloc(0);
    const socket = connect({
      port: this.#load.port,
      host: "127.0.0.1",
      noDelay: true,
      onread: {
        buffer: Buffer.allocUnsafe(READ_BUFFER_BYTES),
        callback: (length, buffer) => {
          this.#read(Buffer.from(buffer.buffer, buffer.byteOffset, length));
          return true;
        },
      },
    });
    this.#socket = socket;
    socket.on("connect", () => this.#send());
    socket.on("error", (error) => this.#tally.fail(error.message));
    socket.on("close", () => {
      if (socket !== this.#socket) {
        return;
      }
      if (this.#waiting) {
        this.#tally.fail("connection closed before the answer was complete");
        this.#waiting = false;
      }
      if (this.#stopped || this.#tally.failed > MAX_FAILURES) {
        this.#end();
      } else {
        this.#open();
      }
    });
  }

  #send(): void {
    this.#head = undefined;
    this.#bodySeen = 0;
    this.#chunks = undefined;
    this.#waiting = true;
    this.#startedAt = performance.now();
    this.#socket?.write(this.#request);
  }

  #read(bytes: Buffer): void {
    if (!this.#waiting) {
      this.#tally.fail("bytes that answer no request");
      this.#socket?.destroy();
      return;
    }
    let body = bytes;
    if (this.#head === undefined) {
      const all = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
      const end = all.indexOf(HEAD_END);
      if (end < 0) {
        this.#pending = Buffer.from(all);
        return;
      }
      this.#pending = Buffer.alloc(0);
      const text = all.toString("latin1", 0, end + 2);
      // Most answers repeat the last head byte for byte: parse it once.
      if (text !== this.#headText || this.#lastHead === undefined) {
        this.#lastHead = parseHead(text);
        this.#headText = text;
      }
      this.#head = this.#lastHead;
      this.#chunks = this.#head.bodyBytes < 0 ? new ChunkedBody() : undefined;
      body = all.subarray(end + 4);
    }
    if (this.#chunks === undefined) {
      this.#bodySeen += body.length;
      if (this.#bodySeen >= this.#head.bodyBytes) {
        this.#complete(this.#head);
      }
      return;
    }
    this.#chunks.read(body);
    this.#bodySeen = this.#chunks.dataBytes;
    if (this.#chunks.done) {
      this.#complete(this.#head);
    }
  }

  #complete(head: Head): void {
    this.#waiting = false;
    if (head.status !== 200 || this.#bodySeen !== this.#load.expectBytes) {
      this.#tally.fail(`status ${head.status}, ${this.#bodySeen} body bytes`);
    } else {
      this.#tally.record(performance.now() - this.#startedAt);
      if (this.#tally.count >= (this.#load.most ?? Infinity)) this.#stopped = true;
    }
    if (this.#stopped || this.#tally.failed > MAX_FAILURES) {
      this.#end();
    } else if (head.closes) {
      this.#socket?.destroy();
    } else {
      this.#send();
    }
  }
}

/** Runs one HTTP load to its end: stops asking when the time is up, then waits for what is in flight. */
export async function httpLoad(load: HttpLoad): Promise<LoadResult> {
  const tally = new Tally();
  const length = load.bodyBytes > 0 ? `Content-Length: ${load.bodyBytes}\r\n` : "";
  const request = Buffer.concat([
    Buffer.from(`${load.head}${length}\r\n`),
    Buffer.alloc(load.bodyBytes, "x"),
  ]);
  const startedAt = performance.now();
  await new Promise<void>((resolve) => {
    const open = new Set<Connection>();
    const connections: Connection[] = [];
    const grace = setTimeout(
      () => {
        if (open.size > 0) {
          tally.fail(`${open.size} answers outstanding after the grace time`);
        }
        for (const connection of connections) {
          connection.kill();
        }
      },
      load.seconds * 1000 + GRACE_MS,
    );
    for (let i = 0; i < load.connections; i += 1) {
      const connection = new Connection(load, request, tally, () => {
        open.delete(connection);
        if (open.size === 0) {
          clearTimeout(grace);
          resolve();
        }
      });
      open.add(connection);
      connections.push(connection);
    }
    setTimeout(() => {
      for (const connection of connections) {
        connection.stop();
      }
    }, load.seconds * 1000);
  });
  return tally.result((performance.now() - startedAt) / 1000);
}
