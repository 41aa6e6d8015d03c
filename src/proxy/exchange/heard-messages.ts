/** A WebSocket whose messages plugins hear in both directions, while its bytes pass as they are. */
import { MessageCounts } from "../../http/web-socket-frame.ts";
import { WebSocketReader } from "../../http/web-socket-reader.ts";
import type { Hear } from "../../pipeline/message-judge.ts";
import type { MessageLimits } from "./message-gate.ts";

/** Counts messages and passes whole ones on. What cannot be read is not heard, and nothing after it in its direction. */
export class HeardMessages extends MessageCounts {
  readonly #hear: Hear;
  readonly #client: WebSocketReader;
  readonly #server: WebSocketReader;

  constructor(limits: MessageLimits, hear: Hear) {
    super();
    this.#hear = hear;
    this.#client = new WebSocketReader(limits);
    this.#server = new WebSocketReader(limits, "server");
  }

  override up(chunk: Uint8Array): void {
    super.up(chunk);
    this.#read("client", this.#client, chunk);
  }

  override down(chunk: Uint8Array): void {
    super.down(chunk);
    this.#read("server", this.#server, chunk);
  }

  close(): void {
    this.#client.release();
    this.#server.release();
  }

  #read(from: "client" | "server", reader: WebSocketReader, chunk: Uint8Array): void {
    // The bytes are written on, and their memory is used again.
    reader.push(Buffer.from(chunk));
    for (;;) {
      const item = reader.next();
      if (item === undefined) return;
      const isMessage = item.kind === "text" || item.kind === "binary";
      if (isMessage) this.#hear({ from, ...item });
      // Between the fragments of a message there may be control frames.
      if (isMessage || item.kind === "fault") reader.release();
      if (item.kind === "fault") return;
    }
  }
}
