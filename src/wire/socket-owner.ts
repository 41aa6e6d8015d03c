/** The events of a client's socket, for the connection that reads it. */
import type { Socket } from "node:net";

/** What hears of them. */
export interface SocketOwner {
  onData(chunk: Buffer): void;
  onEnd(): void;
  onDrain(): void;
  onClose(): void;
}

const owner = Symbol("connection");
type Owned = Socket & { [owner]?: SocketOwner | undefined };

/** The listeners are functions that all connections share: closures of each would be most of what an idle one costs. */
export function own(socket: Socket, by: SocketOwner): void {
  (socket as Owned)[owner] = by;
  socket.on("error", ignore);
  socket.on("drain", onDrain);
  socket.on("end", onEnd);
  socket.on("close", onClose);
  socket.on("data", onData);
}

/** Only of its end will the owner hear then. */
export function disown(socket: Socket): void {
  socket.off("data", onData).off("end", onEnd).off("drain", onDrain);
  socket.pause();
}

function onData(this: Owned, chunk: Buffer): void {
  this[owner]?.onData(chunk);
}

function onEnd(this: Owned): void {
  this[owner]?.onEnd();
}

function onDrain(this: Owned): void {
  this[owner]?.onDrain();
}

function onClose(this: Owned): void {
  this[owner]?.onClose();
}

function ignore(): void {
  // `close` follows, and is what ends the exchange.
}
