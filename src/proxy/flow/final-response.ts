/** The last response on a connection whose bytes nobody reads any more. */
import type { Duplex } from "node:stream";
import { lingerMs } from "../../net/linger.ts";
import type { Denial } from "../../pipeline/decision.ts";
import { rawReply, renderDenial } from "./reply.ts";

/** Sends a refusal and closes, also when the client keeps its side open. */
export function sendFinalResponse(socket: Duplex, denial: Denial): void {
  sendLast(socket, rawReply(renderDenial(denial)));
}

/** The same for whatever the client reads. */
export function sendLast(socket: Duplex, bytes: Uint8Array): void {
  socket.on("error", ignore);
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  socket.end(bytes);
  // Unread bytes at close make the kernel reset the connection before the client has read the response.
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), lingerMs);
  timer.unref();
  socket.once("close", () => clearTimeout(timer));
}

function ignore(): void {
  // The connection is being closed anyway.
}
