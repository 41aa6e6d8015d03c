/** The connections of an operator surface: a bounded number, of which those that ask nothing make room for those that ask. */
import type { Socket } from "node:net";

/** Connections in the order of their arrival, and how many requests each has under way. */
export class AdminConnections {
  readonly #limit: number;
  readonly #underWay = new Map<Socket, number>();
  /** Called for every connection that was closed because there were too many. */
  readonly #onFull: () => void;

  constructor(limit: number, onFull: () => void) {
    this.#limit = limit;
    this.#onFull = onFull;
  }

  /** A connection came: when there are too many, the oldest without a request under way is closed: at the worst this one. */
  add(socket: Socket): void {
    this.#underWay.set(socket, 0);
    socket.once("close", () => this.#underWay.delete(socket));
    if (this.#underWay.size <= this.#limit) return;
    this.#onFull();
    for (const [other, requests] of this.#underWay) {
      if (requests > 0) continue;
      // It leaves the count at once: its close event comes later than the next connection may.
      this.#underWay.delete(other);
      other.destroy();
      return;
    }
  }

  /** A request came on the connection; what is returned is called when its response is over. */
  begin(socket: Socket): () => void {
    this.#change(socket, 1);
    return () => this.#change(socket, -1);
  }

  #change(socket: Socket, by: number): void {
    const count = this.#underWay.get(socket);
    if (count !== undefined) this.#underWay.set(socket, count + by);
  }
}
