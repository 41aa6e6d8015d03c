/**
 * Reading a socket into one buffer of our own, which grows with the traffic.
 *
 * Measured: a reused 256 KiB buffer doubles the bulk rate of a tunnel over 64 KiB chunks that node allocates, but an
 * idle tunnel must not hold that much.
 */
import type { OnReadOpts, Socket } from "node:net";

const smallBytes = 16 * 1024;
const largeBytes = 256 * 1024;
const fullReadsToGrow = 2;
const smallReadsToShrink = 4;
/** Start buffers of closed tunnels: allocating 16 KiB outside the heap for each makes V8 collect far too often. */
const maxSpare = 128;
const spare: Buffer[] = [];
const nothing = Buffer.alloc(0);

/**
 * Takes what was read. "free": the chunk is used up and its memory may be overwritten. "kept": something still
 * points to it. "wait": kept, and nothing is to be read until resume().
 */
export type ChunkSink = (chunk: Uint8Array) => "free" | "kept" | "wait";

/** The reading half of one socket: give `bind()` to net.connect as `onread`, then attach() to where data goes. */
export class AdaptiveReader {
  readonly #options: OnReadOpts;
  #buffer = spare.pop() ?? Buffer.allocUnsafeSlow(smallBytes);
  #isLent = false;
  #fullReads = 0;
  #smallReads = 0;
  #sink: ChunkSink | undefined;
  #early: Buffer | undefined;
  #first: ((chunk: Buffer) => void) | undefined;
  #isBound = false;

  constructor() {
    this.#options = {
      buffer: () => this.#next(),
      callback: (bytesRead) => this.#take(bytesRead),
    };
  }

  /** True once a connection was dialled with `bind()`: one whose bytes come some other way has no use for a reader. */
  get isBound(): boolean {
    return this.#isBound;
  }

  /** The options, for the connection that is dialled with them. */
  bind(): OnReadOpts {
    this.#isBound = true;
    return this.#options;
  }

  /** Before attach(): copies of what comes go to `listener`, as in a handshake that comes before the data. */
  divert(socket: Socket, listener: (chunk: Buffer) => void): void {
    this.#first = listener;
    const early = this.#early;
    this.#early = undefined;
    if (early !== undefined) listener(early);
    socket.resume();
  }

  /** Ends divert(); `rest` is what came and belongs to the data. */
  undivert(rest: Buffer): void {
    this.#first = undefined;
    this.#early = rest.length === 0 ? undefined : rest;
  }

  /** Sends everything from now on, and what came before, to the sink. Call it once. */
  attach(socket: Socket, sink: ChunkSink): void {
    this.#sink = sink;
    const early = this.#early;
    this.#early = undefined;
    if (early === undefined || sink(early) !== "wait") {
      socket.resume();
    }
  }

  /** Gives the buffer back. Only after both connections have emitted `close`: then no write points into it. */
  release(): void {
    if (this.#buffer.length === smallBytes && spare.length < maxSpare) spare.push(this.#buffer);
    this.#buffer = nothing;
  }

  #take(bytesRead: number): boolean {
    const chunk = this.#buffer.subarray(0, bytesRead);
    if (this.#first !== undefined) {
      this.#first(Buffer.from(chunk));
      return this.#first !== undefined;
    }
    if (this.#sink === undefined) {
      // There is no listener yet (a server that sends first): one chunk is kept and reading stops.
      this.#early =
        this.#early === undefined ? Buffer.from(chunk) : Buffer.concat([this.#early, chunk]);
      return false;
    }
    const outcome = this.#sink(chunk);
    // After "wait" the sink is empty by the time that reading goes on, so the buffer is free again.
    this.#isLent = outcome === "kept";
    this.#fullReads = bytesRead === this.#buffer.length ? this.#fullReads + 1 : 0;
    this.#smallReads = bytesRead < smallBytes ? this.#smallReads + 1 : 0;
    return outcome !== "wait";
  }

  /** Node asks after every read which buffer the next one goes to. */
  #next(): Buffer {
    let size = this.#buffer.length;
    if (size === smallBytes && this.#fullReads >= fullReadsToGrow) {
      size = largeBytes;
    } else if (size === largeBytes && this.#smallReads >= smallReadsToShrink) {
      size = smallBytes;
    }
    if (this.#isLent || size !== this.#buffer.length) {
      this.#buffer = Buffer.allocUnsafeSlow(size);
      this.#isLent = false;
    }
    return this.#buffer;
  }
}

/** Makes the `onread` side of one outgoing connection: `net.connect({ ...where, onread: reader.bind() })`. */
export function adaptiveReader(): AdaptiveReader {
  return new AdaptiveReader();
}
