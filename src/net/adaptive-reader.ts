/**
 * Reading a socket into memory of our own: a little that all share while little comes, much for each while much does.
 *
 * Measured: a reused 256 KiB buffer doubles the bulk rate of a tunnel over 64 KiB chunks that node allocates, but an
 * idle tunnel must not hold that much, and memory outside the heap for each short one makes V8 collect far too often.
 */
import type { OnReadOpts, Socket } from "node:net";

const smallBytes = 16 * 1024;
const largeBytes = 256 * 1024;
const fullReadsToGrow = 2;
const smallReadsToShrink = 4;
/** Of all sockets that have no buffer of their own. One reads at a time, and what it read is copied before the next. */
const shared = Buffer.allocUnsafeSlow(smallBytes);
/** Large buffers of closed tunnels. */
const maxSpare = 4;
const spare: Buffer[] = [];

/**
 * Takes what was read. "free": the chunk is used up and its memory may be overwritten. "kept": something still
 * points to it. "wait": kept, and nothing is to be read until resume().
 */
export type ChunkSink = (chunk: Uint8Array) => "free" | "kept" | "wait";

/** The reading half of one socket: give `bind()` to net.connect as `onread`, then attach() to where data goes. */
export class AdaptiveReader {
  readonly #options: OnReadOpts;
  /** Undefined while the shared one is read into. */
  #own: Buffer | undefined;
  #isLent = false;
  /** What was read last is used up, so that another reader may have the buffer at once. */
  #isFree = true;
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
    if (this.#own !== undefined && spare.length < maxSpare) spare.push(this.#own);
    this.#own = undefined;
  }

  #take(bytesRead: number): boolean {
    const own = this.#own;
    if (this.#first !== undefined || this.#sink === undefined) {
      const copy = Buffer.from((own ?? shared).subarray(0, bytesRead));
      return this.#takeEarly(copy);
    }
    const outcome = this.#sink(
      own === undefined ? Buffer.from(shared.subarray(0, bytesRead)) : own.subarray(0, bytesRead),
    );
    // After "wait" the sink is empty by the time that reading goes on, so the buffer is free again.
    this.#isLent = outcome === "kept" && own !== undefined;
    this.#isFree = outcome === "free";
    this.#fullReads = bytesRead === (own ?? shared).length ? this.#fullReads + 1 : 0;
    this.#smallReads = bytesRead < smallBytes ? this.#smallReads + 1 : 0;
    return outcome !== "wait";
  }

  #takeEarly(copy: Buffer): boolean {
    if (this.#first !== undefined) {
      this.#first(copy);
      return this.#first !== undefined;
    }
    // There is no listener yet (a server that sends first): one chunk is kept and reading stops.
    this.#early = this.#early === undefined ? copy : Buffer.concat([this.#early, copy]);
    return false;
  }

  /** Node asks after every read which buffer the next one goes to. */
  #next(): Buffer {
    if (this.#own === undefined) {
      if (this.#fullReads >= fullReadsToGrow) this.#own = spare.pop() ?? large();
    } else if (this.#smallReads >= smallReadsToShrink) {
      if (this.#isFree && spare.length < maxSpare) spare.push(this.#own);
      this.#own = undefined;
      this.#isLent = false;
    } else if (this.#isLent) {
      this.#own = large();
      this.#isLent = false;
    }
    return this.#own ?? shared;
  }
}

function large(): Buffer {
  return Buffer.allocUnsafeSlow(largeBytes);
}

/** Makes the `onread` side of one outgoing connection: `net.connect({ ...where, onread: reader.bind() })`. */
export function adaptiveReader(): AdaptiveReader {
  return new AdaptiveReader();
}
