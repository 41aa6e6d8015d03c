/** Takes credentials out of the frames of a server, which keep their lengths: each is looked through by itself. */
import type { Echo, EchoStream } from "./echo.ts";
import { FrameBoundary } from "./web-socket-frame.ts";

/** One direction of one connection, without extensions. */
export class WebSocketEcho {
  readonly #boundary = new FrameBoundary();
  readonly #echo: () => Echo | undefined;
  #payload: EchoStream | undefined;

  /** What is looked for may only become known while the connection is open. */
  constructor(echo: () => Echo | undefined) {
    this.#echo = echo;
  }

  pass(chunk: Buffer): Buffer {
    if (this.#payload === undefined && this.#echo() === undefined) {
      this.#boundary.pass(chunk);
      return chunk;
    }
    const parts: Buffer[] = [];
    for (let at = 0; at < chunk.length;) {
      const left = this.#boundary.payloadLeft;
      const part = chunk.subarray(at, at + Math.max(left, 1));
      this.#boundary.pass(part);
      at += part.length;
      if (left === 0) {
        parts.push(part);
        continue;
      }
      this.#payload ??= this.#echo()?.stream(false);
      const isEnd = this.#boundary.payloadLeft === 0;
      parts.push((isEnd ? this.#payload?.end(part) : this.#payload?.push(part)) ?? part);
      if (isEnd) this.#payload = undefined;
    }
    return Buffer.concat(parts);
  }
}
