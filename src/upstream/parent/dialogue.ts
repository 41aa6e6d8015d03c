/** The handshake that opens a tunnel through a parent, before the connection's bytes belong to the tunnel. */
import type { Socket } from "node:net";
import type { ProxyError } from "../../errors.ts";
import { type AbortSource, cancelled } from "../../net/abort-source.ts";
import type { AdaptiveReader } from "../../net/adaptive-reader.ts";

/** The result of the bytes received so far. */
export type Step =
  | { readonly kind: "more" }
  /** Send, and continue to read after `used` bytes. */
  | { readonly kind: "send"; readonly bytes: Buffer; readonly used: number }
  /** The tunnel is open; what comes after `used` bytes belongs to it. */
  | { readonly kind: "done"; readonly used: number };

/** One side of a protocol that opens tunnels. */
export interface Dialogue {
  /** The first bytes to send. */
  readonly opening: Buffer;
  /** Judges the bytes that are not used yet. Throws ProxyError. */
  step(received: Buffer): Step;
  /** The fault when the connection ended before the tunnel was open. */
  closed(): ProxyError;
  /** The fault when the time limit has passed. */
  late(timeoutMs: number): ProxyError;
}

/** Options of a dialogue. */
export interface ConverseOptions {
  /** Time for the whole dialogue: slow bytes do not extend it. */
  readonly timeoutMs: number;
  readonly signal: AbortSource;
  /** The reader that the socket was created with. */
  readonly reader?: AdaptiveReader;
}

/** Runs the dialogue; resolves when the tunnel is open. The socket is the caller's to destroy when it rejects. */
export function converse(
  socket: Socket,
  dialogue: Dialogue,
  options: ConverseOptions,
): Promise<void> {
  return new Promise((resolve, reject) => {
    new Conversation(socket, dialogue, options, (error) =>
      error === undefined ? resolve() : reject(error),
    ).start();
  });
}

class Conversation {
  readonly #socket: Socket;
  readonly #dialogue: Dialogue;
  readonly #options: ConverseOptions;
  readonly #settle: (error: Error | undefined) => void;
  #received: Buffer = Buffer.alloc(0);
  #deadline: NodeJS.Timeout | undefined;
  #isOver = false;

  constructor(
    socket: Socket,
    dialogue: Dialogue,
    options: ConverseOptions,
    settle: (error: Error | undefined) => void,
  ) {
    this.#socket = socket;
    this.#dialogue = dialogue;
    this.#options = options;
    this.#settle = settle;
  }

  start(): void {
    const { timeoutMs, signal } = this.#options;
    const socket = this.#socket;
    this.#deadline = setTimeout(() => this.#end(this.#dialogue.late(timeoutMs)), timeoutMs);
    signal.addEventListener("abort", this.#onAbort, { once: true });
    socket.on("error", this.#onClosed);
    socket.on("end", this.#onClosed);
    socket.on("close", this.#onClosed);
    if (signal.aborted) this.#onAbort();
    else if (socket.destroyed) this.#onClosed();
    if (this.#isOver) return;
    socket.write(this.#dialogue.opening);
    const reader = this.#reader;
    if (reader === undefined) socket.on("readable", this.#onReadable);
    else reader.divert(socket, (chunk) => this.#take(chunk));
  }

  get #reader(): AdaptiveReader | undefined {
    const { reader } = this.#options;
    return reader?.isBound === true ? reader : undefined;
  }

  readonly #onAbort = (): void => this.#end(cancelled());

  readonly #onClosed = (): void => this.#end(this.#dialogue.closed());

  readonly #onReadable = (): void => {
    while (!this.#isOver) {
      const chunk: unknown = this.#socket.read();
      if (!Buffer.isBuffer(chunk)) return;
      this.#take(chunk);
    }
  };

  #take(chunk: Buffer): void {
    if (this.#isOver) return;
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
    try {
      for (;;) {
        const step = this.#dialogue.step(this.#received);
        if (step.kind === "more") return;
        this.#received = this.#received.subarray(step.used);
        if (step.kind === "done") {
          this.#end(undefined);
          return;
        }
        this.#socket.write(step.bytes);
      }
    } catch (error) {
      this.#end(error instanceof Error ? error : this.#dialogue.closed());
    }
  }

  #end(error: Error | undefined): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#deadline);
    const socket = this.#socket;
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    socket
      .off("readable", this.#onReadable)
      .off("end", this.#onClosed)
      .off("close", this.#onClosed);
    // From here to the owner's own listener a reset must not become an uncaught exception.
    socket.off("error", this.#onClosed).on("error", ignore);
    if (error === undefined) this.#handOver();
    this.#settle(error);
  }

  /** Bytes after the last response belong to the tunnel: a server may send first. */
  #handOver(): void {
    const reader = this.#reader;
    if (reader !== undefined) reader.undivert(this.#received);
    else if (this.#received.length > 0) this.#socket.unshift(this.#received);
  }
}

function ignore(): void {
  // The owner gets the same failure through its own listener or through `close`.
}
