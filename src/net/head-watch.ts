/** Request heads that have not come to their end: the bytes of all of them together are bounded, and the oldest go first. */
import type { IncomingMessage } from "node:http";
import { Slots } from "./slots.ts";

/** What is watched of a connection: it may be TLS, or a part of one that HTTP/2 owns. */
export interface WatchedSocket {
  readonly bytesRead: number;
  readonly destroyed: boolean;
  destroy(): void;
  once(event: "close", listener: () => void): unknown;
}

/**
 * How often everybody is looked at. Nothing calls us for bytes of an unfinished head: the parser reads from the kernel by
 * itself, and would be slower if it did not.
 */
const lookEveryMs = 100;
/** Less than this goes last. */
const smallBytes = 1_024;
/** So many new connections bring the next look forward. */
const lookAfterNew = 64;

/** The head that one connection is in. */
export interface HeadHolder {
  /** Bytes that were held at the last look. */
  bytes: number;
  /** When its first byte was seen. */
  sinceMs: number;
  /** While it is watched; for {@link HeadWatch}. */
  watchSlot: number | undefined;
  /** Bytes of an unfinished head that are held by now. */
  look(now: number): number;
  /** Gives the memory back. */
  letGo(): void;
}

/** The unfinished heads of one process, whichever of its listeners they are for. */
export class HeadWatch {
  readonly #limitBytes: number;
  readonly #onLetGo: () => void;
  readonly #open = new Slots<HeadHolder>();
  #timer: NodeJS.Timeout | undefined;
  #added = 0;

  constructor(limitBytes: number, onLetGo: () => void) {
    this.#limitBytes = limitBytes;
    this.#onLetGo = onLetGo;
  }

  /** Watches a connection from its first byte until it is closed, or is no longer HTTP. */
  add(socket: WatchedSocket): WatchedHead {
    const head: WatchedHead = new WatchedHead(socket, () => this.unwatch(head));
    this.#begin(head);
    socket.once("close", () => head.close());
    return head;
  }

  /** Watches one whose reader says what it holds, until it is deleted. */
  watch(holder: HeadHolder): void {
    this.#begin(holder);
  }

  /** The connection is closed, or no longer HTTP. */
  unwatch(holder: HeadHolder): void {
    if (holder.watchSlot === undefined) return;
    this.#open.delete(holder.watchSlot);
    holder.watchSlot = undefined;
  }

  #begin(holder: HeadHolder): void {
    holder.watchSlot = this.#open.add(holder);
    this.#timer ??= setInterval(() => this.#look(), lookEveryMs).unref();
    this.#added += 1;
    if (this.#added >= lookAfterNew) this.#look();
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #look(): void {
    this.#added = 0;
    if (this.#open.size === 0) {
      this.close();
      return;
    }
    const now = performance.now();
    let bytes = 0;
    for (const head of this.#open) bytes += head.look(now);
    if (bytes <= this.#limitBytes) return;
    const oldest = [...this.#open]
      .filter((head) => head.bytes > 0)
      .sort((one, other) => one.sinceMs - other.sinceMs);
    const isSmall = ({ bytes: held }: HeadHolder): boolean => held < smallBytes;
    // A few bytes may as well be an empty line behind a request: letting those go would free next to nothing.
    for (const head of [...oldest.filter((one) => !isSmall(one)), ...oldest.filter(isSmall)]) {
      if (bytes <= this.#limitBytes) return;
      bytes -= head.bytes;
      head.letGo();
      this.#onLetGo();
    }
  }
}

/** The head that one connection is in whose bytes somebody else reads. */
export class WatchedHead implements HeadHolder {
  readonly #socket: WatchedSocket;
  readonly #onClose: () => void;
  /** Where in the bytes of the connection the present head begins; Infinity while none can. */
  #start = 0;
  bytes = 0;
  /** When its first byte was seen. */
  sinceMs = 0;
  watchSlot: number | undefined;

  constructor(socket: WatchedSocket, onClose: () => void) {
    this.#socket = socket;
    this.#onClose = onClose;
  }

  /** A whole head has come: the next one begins behind its message. */
  ended(request: IncomingMessage): void {
    const { "content-length": length, "transfer-encoding": coding } = request.headers;
    if (coding === undefined) {
      this.#start += headBytes(request) + (length === undefined ? 0 : Number(length) || 0);
      return;
    }
    // How long chunks are together is known when the last one is there.
    this.pause();
    request.once("close", () => this.resume());
  }

  /** Nothing that comes is part of a head. */
  pause(): void {
    this.#start = Number.POSITIVE_INFINITY;
  }

  /** A head may begin with the next byte. */
  resume(): void {
    this.#start = this.#socket.bytesRead;
  }

  /** The connection is no longer HTTP, or is gone. */
  close(): void {
    this.pause();
    this.bytes = 0;
    this.#onClose();
  }

  /** Bytes of an unfinished head that are held by now. */
  look(now: number): number {
    const held = Math.max(0, this.#socket.bytesRead - this.#start);
    if (held > 0 && this.bytes === 0) this.sinceMs = now;
    this.bytes = held;
    return held;
  }

  letGo(): void {
    this.close();
    this.#socket.destroy();
  }
}

/** What a head took on the wire, but for spaces that say nothing. */
function headBytes({ method = "", url = "", rawHeaders }: IncomingMessage): number {
  // The request line has two spaces, a version and a line end; the head ends with an empty line.
  let bytes = method.length + url.length + 14;
  for (const text of rawHeaders) bytes += text.length;
  // Colon, space and line end of each field.
  return bytes + rawHeaders.length * 2;
}
