/** Connections that this process opened itself, by their own end: one that is redirected back to it is a loop. */
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { Socket } from "node:net";
import { parseAddress } from "./address.ts";
import { Slots } from "./slots.ts";

/** Node tells of every client socket here (node:diagnostics_channel, built-in channels). */
const channel = "net.client.socket";

interface Dial {
  readonly socket: Socket;
  /** While its own end was not asked for. */
  slot: number | undefined;
}

/** The set of them while they are open; made in a process that serves redirected connections. */
export class OwnDials {
  /** Open ones whose own end was not asked for yet: asking costs 5 µs, and only redirected connections need it. */
  readonly #unread = new Slots<Dial>();
  readonly #open = new Set<string>();

  constructor() {
    subscribe(channel, this.#onSocket);
  }

  /** Whether the client of an accepted connection is this process itself. */
  has(address: string | undefined, port: number | undefined): boolean {
    for (const dial of this.#unread) this.#read(dial);
    const key = keyOf(address, port);
    return key !== undefined && this.#open.has(key);
  }

  close(): void {
    unsubscribe(channel, this.#onSocket);
  }

  readonly #onSocket = (message: unknown): void => {
    const socket: unknown =
      typeof message === "object" && message !== null ? Reflect.get(message, "socket") : undefined;
    if (!(socket instanceof Socket)) return;
    const dial: Dial = { socket, slot: undefined };
    dial.slot = this.#unread.add(dial);
    socket.once("close", () => this.#forget(dial));
  };

  #read(dial: Dial): void {
    const { socket } = dial;
    // It has no end of its own yet, and Node would remember that answer.
    if (socket.connecting) return;
    this.#forget(dial);
    const key = keyOf(socket.localAddress, socket.localPort);
    if (key === undefined) return;
    this.#open.add(key);
    socket.once("close", () => this.#open.delete(key));
  }

  #forget(dial: Dial): void {
    if (dial.slot !== undefined) this.#unread.delete(dial.slot);
    dial.slot = undefined;
  }
}

function keyOf(address: string | undefined, port: number | undefined): string | undefined {
  const plain = address === undefined ? undefined : parseAddress(address)?.unmapped();
  return plain === undefined || port === undefined ? undefined : `${plain.toString()} ${port}`;
}
