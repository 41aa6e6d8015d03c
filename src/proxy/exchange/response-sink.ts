/** Where an upstream's response goes: straight to the client, as fast as the client reads. */
import type { Denial, Reply } from "../../pipeline/decision.ts";
import type { Downstream } from "./downstream.ts";
import { contentLengthOf } from "./response-head.ts";

/** Flow control of the upstream: a RequestControl, or anything that can pause reading. */
export interface FlowControl {
  /** Trailers may follow a body of a known length, as in HTTP/2. */
  readonly mayHaveTrailers?: boolean;
  pause(): void;
  resume(): void;
}

/** What the client gets in place of the upstream's response. */
export interface ReplacedResponse {
  readonly status: number;
  readonly denial?: Denial | undefined;
  /** Absent where its end was written into the response that had begun. */
  readonly reply?: Reply;
}

/** Takes one response in order: start, data…, end. */
export interface ResponseSink {
  start(status: number, headers: string[], reason: string | undefined): void;
  data(chunk: Buffer): void;
  /** True where nothing refers any longer to what {@link data} was given last. */
  readonly isDrained?: boolean;
  end(trailers: readonly (readonly [string, string])[]): void;
}

/** Forwards bytes as they come, under back-pressure. */
export class DirectSink implements ResponseSink {
  readonly #downstream: Downstream;
  readonly #control: FlowControl;
  #awaited: number | undefined;
  #ended = false;

  constructor(downstream: Downstream, control: FlowControl) {
    this.#downstream = downstream;
    this.#control = control;
    downstream.onDrain(() => control.resume());
  }

  get isDrained(): boolean {
    return this.#downstream.isDrained;
  }

  start(status: number, headers: string[], reason: string | undefined): void {
    if (this.#control.mayHaveTrailers !== true) this.#awaited = contentLengthOf(headers);
    this.#downstream.writeHead(status, headers, reason);
    // A body that came with the head leaves in one write with it. This runs when the parser has given all it had;
    // a head that stands alone then must not wait for a body that may come much later.
    queueMicrotask(() => {
      if (!this.#ended && this.#downstream.bytesSent === 0) this.#downstream.flushHead();
    });
  }

  data(chunk: Buffer): void {
    if (this.#awaited !== undefined) {
      this.#awaited -= chunk.length;
      if (this.#awaited === 0) {
        this.#ended = true;
        this.#downstream.end(chunk);
        return;
      }
    }
    if (!this.#downstream.write(chunk)) this.#control.pause();
  }

  end(trailers: readonly (readonly [string, string])[]): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#downstream.end(undefined, trailers);
  }
}
