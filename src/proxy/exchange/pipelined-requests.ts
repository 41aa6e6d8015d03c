/** Requests that a client pipelines: served one after another, in the order in which they were sent. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** More requests than this behind an unanswered one, and the connection is closed. */
const mostWaiting = 64;

/**
 * Keeps one connection from being many requests at once.
 *
 * Node hands a pipelined request over while earlier ones are unanswered; a few kilobytes of a client would then become
 * hundreds of connections to an origin, whose responses would wait here in memory for their turn.
 */
export class PipelinedRequests {
  /** Only connections that pipeline are ever in it. */
  readonly #waiting = new WeakMap<Socket, number>();

  /** Calls `serve` once the response can be written. */
  take(request: IncomingMessage, response: ServerResponse, serve: () => void): void {
    if (response.socket !== null) {
      serve();
      return;
    }
    const { socket } = request;
    const waiting = this.#change(socket, 1);
    if (waiting > mostWaiting) {
      socket.destroy();
      return;
    }
    response.once("socket", () => {
      this.#change(socket, -1);
      // The connection may have been refused meanwhile.
      if (socket.writable) serve();
    });
  }

  #change(socket: Socket, change: number): number {
    const waiting = (this.#waiting.get(socket) ?? 0) + change;
    this.#waiting.set(socket, waiting);
    return waiting;
  }
}
