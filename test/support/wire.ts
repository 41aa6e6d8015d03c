/** Reads HTTP/1.1 answers, and anything else, byte by byte from a connection whose requests are written by hand. */
import type { Duplex } from "node:stream";

/** One whole answer. */
export interface WireAnswer {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly text: string;
  readonly body: Buffer;
  readonly trailers: ReadonlyMap<string, string>;
  /** Statuses of the 1xx answers before it. */
  readonly interim: readonly number[];
}

const limitMs = 10_000;

/** The reading half of a connection. */
export class Wire {
  readonly socket: Duplex;
  #bytes: Buffer = Buffer.alloc(0);
  #isOver = false;
  #error: NodeJS.ErrnoException | undefined;
  #wake: (() => void) | undefined;

  constructor(socket: Duplex) {
    this.socket = socket;
    const over = (): void => {
      this.#isOver = true;
      this.#wake?.();
    };
    socket.on("data", (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.#wake?.();
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#error = error;
      over();
    });
    socket.on("end", over);
    socket.on("close", over);
    if (socket.destroyed || socket.readableEnded) over();
  }

  /** The error that the connection ended with, if any. */
  get error(): NodeJS.ErrnoException | undefined {
    return this.#error;
  }

  /** Sends text, one byte per character, or bytes. */
  send(bytes: string | Uint8Array): void {
    this.socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
  }

  /** Waits until `look` finds what it wants in the unread bytes, and cuts off as many as it says. */
  async take<T>(what: string, look: (bytes: Buffer) => [T, number] | undefined): Promise<T> {
    const deadline = Date.now() + limitMs;
    for (;;) {
      const found = look(this.#bytes);
      if (found !== undefined) {
        this.#bytes = this.#bytes.subarray(found[1]);
        return found[0];
      }
      if (this.#isOver) throw this.#complaint(`ended before ${what}`);
      const left = deadline - Date.now();
      if (left <= 0) throw this.#complaint(`no ${what} within ${limitMs} ms`);
      await this.#nextEvent(left);
    }
  }

  /** The next bytes up to and with the delimiter. */
  until(delimiter: string): Promise<string> {
    return this.take(JSON.stringify(delimiter), (bytes) => {
      const at = bytes.indexOf(delimiter, 0, "latin1");
      const length = at + delimiter.length;
      return at === -1 ? undefined : [bytes.toString("latin1", 0, length), length];
    });
  }

  exactly(count: number): Promise<Buffer> {
    return this.take(`${count} bytes`, (bytes) =>
      bytes.length < count ? undefined : [bytes.subarray(0, count), count],
    );
  }

  /** Everything until the other side is gone, or has sent its last byte. */
  async rest(waitMs = limitMs): Promise<Buffer> {
    const deadline = Date.now() + waitMs;
    while (!this.#isOver) {
      const left = deadline - Date.now();
      if (left <= 0) throw this.#complaint(`still open after ${waitMs} ms`);
      await this.#nextEvent(left);
    }
    const bytes = this.#bytes;
    this.#bytes = Buffer.alloc(0);
    return bytes;
  }

  /** The next answer to a request of this method. */
  async answer(method = "GET"): Promise<WireAnswer> {
    const interim: number[] = [];
    for (;;) {
      const [status, headers] = parseHead(await this.until("\r\n\r\n"));
      if (status < 200 && status !== 101) {
        interim.push(status);
        continue;
      }
      const isBodiless = method === "HEAD" || status === 101 || status === 204 || status === 304;
      const [body, trailers] = isBodiless ? noBody : await this.#body(headers);
      return { status, headers, body, text: body.toString("utf8"), trailers, interim };
    }
  }

  async ask(head: string, body: string | Buffer = ""): Promise<WireAnswer> {
    this.send(Buffer.concat([Buffer.from(head, "latin1"), Buffer.from(body)]));
    return this.answer(head.split(" ")[0]);
  }

  close(): void {
    this.socket.destroy();
  }

  async #body(headers: ReadonlyMap<string, string>): Promise<[Buffer, Map<string, string>]> {
    if (headers.get("transfer-encoding") === "chunked") {
      const chunks: Buffer[] = [];
      for (;;) {
        const size = Number.parseInt(await this.until("\r\n"), 16);
        if (size === 0) break;
        chunks.push(await this.exactly(size));
        await this.until("\r\n");
      }
      const lines: string[] = [];
      for (let line = await this.until("\r\n"); line !== "\r\n"; line = await this.until("\r\n")) {
        lines.push(line.trimEnd());
      }
      return [Buffer.concat(chunks), fieldsOf(lines)];
    }
    const length = headers.get("content-length");
    return [
      length === undefined ? await this.rest() : await this.exactly(Number(length)),
      new Map(),
    ];
  }

  #complaint(what: string): Error {
    const seen = JSON.stringify(this.#bytes.toString("latin1", 0, 300));
    const cause = this.#error === undefined ? {} : { cause: this.#error };
    const why = this.#error === undefined ? "" : ` (${this.#error.code ?? this.#error.message})`;
    return new Error(`${what}${why}; unread: ${seen}`, cause);
  }

  #nextEvent(waitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(done, waitMs);
      this.#wake = done;
    });
  }
}

const noBody: [Buffer, Map<string, string>] = [Buffer.alloc(0), new Map()];

function parseHead(text: string): [number, Map<string, string>] {
  const [line = "", ...lines] = text.trimEnd().split("\r\n");
  return [Number(line.split(" ")[1]), fieldsOf(lines)];
}

function fieldsOf(lines: readonly string[]): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).toLowerCase();
    const value = line.slice(colon + 1).trim();
    const known = fields.get(name);
    fields.set(name, known === undefined ? value : `${known}, ${value}`);
  }
  return fields;
}
