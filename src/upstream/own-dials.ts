/** Connections that this process opened for agents, by their own end: one that comes back to us is a loop. */
import type { Socket } from "node:net";
import { parseAddress } from "../net/address.ts";

/** The set of them while they are open. */
export class OwnDials {
  readonly #open = new Set<string>();

  /** Call when the socket is connected; it forgets itself. */
  add(socket: Socket): void {
    const key = keyOf(socket.localAddress, socket.localPort);
    if (key === undefined) return;
    this.#open.add(key);
    socket.once("close", () => this.#open.delete(key));
  }

  /** Whether the client of an accepted connection is this process itself. */
  has(address: string | undefined, port: number | undefined): boolean {
    const key = keyOf(address, port);
    return key !== undefined && this.#open.has(key);
  }
}

function keyOf(address: string | undefined, port: number | undefined): string | undefined {
  const plain = address === undefined ? undefined : parseAddress(address)?.unmapped();
  return plain === undefined || port === undefined ? undefined : `${plain.toString()} ${port}`;
}
