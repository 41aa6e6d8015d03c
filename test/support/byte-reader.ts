/** Pulls bytes from a socket on demand, so that not reading is back-pressure. */
import type { Duplex } from "node:stream";
import { patience } from "./eventually.ts";

const usualWaitMs = 8000 * patience;

/** The reading half of a socket. */
export class ByteReader {
  #pending: Buffer = Buffer.alloc(0);
  #hasEnded = false;
  #error: Error | undefined;
  #wake: (() => void) | undefined;
  readonly #socket: Duplex;

  constructor(socket: Duplex) {
    this.#socket = socket;
    socket.on("readable", () => {
      // Without a byte it announces the end, which comes once somebody has read.
      if (socket.readableLength === 0) this.#drain();
      this.#wake?.();
    });
    socket.on("end", () => this.#stop());
    socket.on("close", () => this.#stop());
    socket.on("error", (error) => {
      this.#error = error;
      this.#stop();
    });
    if (socket.destroyed || socket.readableEnded) this.#hasEnded = true;
  }

  /** Everything was read and nothing more will come. */
  get hasEnded(): boolean {
    return this.#hasEnded && this.#pending.length === 0;
  }

  /** How the connection broke, if it did. */
  get error(): Error | undefined {
    return this.#error;
  }

  /** At least one byte, or undefined at the end. */
  async some(waitMs = usualWaitMs): Promise<Buffer | undefined> {
    if (this.#pending.length === 0) await this.#more(waitMs);
    if (this.#pending.length === 0) return undefined;
    const bytes = this.#pending;
    this.#pending = Buffer.alloc(0);
    return bytes;
  }

  /** The text, one character per byte, up to and with the delimiter; a fault when the connection ends before it. */
  async until(delimiter: string, waitMs = usualWaitMs): Promise<string> {
    let found = this.#pending.indexOf(delimiter, 0, "latin1");
    while (found === -1) {
      await this.#moreOrFail(JSON.stringify(delimiter), waitMs);
      found = this.#pending.indexOf(delimiter, 0, "latin1");
    }
    return this.#cut(found + delimiter.length).toString("latin1");
  }

  /** Waits, however long, until there is a byte or the end. */
  async peek(): Promise<void> {
    if (this.#pending.length === 0) await this.#more(2 ** 31 - 1);
  }

  async exactly(count: number, waitMs = usualWaitMs): Promise<Buffer> {
    // Taken piece by piece: joining each to all before it would copy a large body hundreds of times.
    const pieces: Buffer[] = [];
    for (let left = count; left > 0;) {
      if (this.#pending.length === 0) await this.#moreOrFail(`${count} bytes`, waitMs);
      const piece = this.#cut(left);
      left -= piece.length;
      pieces.push(piece);
    }
    return Buffer.concat(pieces);
  }

  /** What is left until the connection ends. */
  async toEnd(waitMs = usualWaitMs): Promise<Buffer> {
    const chunks: Buffer[] = [];
    for (
      let bytes = await this.some(waitMs);
      bytes !== undefined;
      bytes = await this.some(waitMs)
    ) {
      chunks.push(bytes);
    }
    return Buffer.concat(chunks);
  }

  #cut(count: number): Buffer {
    const bytes = this.#pending.subarray(0, count);
    this.#pending = this.#pending.subarray(count);
    return bytes;
  }

  #stop(): void {
    this.#drain();
    this.#hasEnded = true;
    this.#wake?.();
  }

  #drain(): boolean {
    const bytes: unknown = this.#socket.read();
    if (!Buffer.isBuffer(bytes)) return false;
    this.#pending = Buffer.concat([this.#pending, bytes]);
    return true;
  }

  async #moreOrFail(what: string, waitMs: number): Promise<void> {
    const before = this.#pending.length;
    await this.#more(waitMs);
    if (this.#pending.length === before) {
      const seen = this.#pending.toString("latin1").slice(0, 300);
      throw new Error(
        `connection ended before ${what}; read so far: ${JSON.stringify(seen)}`,
        this.#error === undefined ? undefined : { cause: this.#error },
      );
    }
  }

  async #more(waitMs: number): Promise<void> {
    const deadline = Date.now() + waitMs;
    while (!this.#drain() && !this.#hasEnded) {
      const left = deadline - Date.now();
      if (left <= 0) {
        const seen = this.#pending.toString("latin1").slice(0, 300);
        throw new Error(`nothing more within ${waitMs} ms after ${JSON.stringify(seen)}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
  }
}
