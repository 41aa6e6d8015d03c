/** Keeps what came before a reset readable while an upload is still being written. */
import type { Socket } from "node:net";

type Written = (error?: Error | null) => void;

/**
 * An origin that refuses an upload early responds, and closes with unread bytes.
 *
 * Node destroys a socket as soon as a write fails, although the kernel may still hold a response: from here on a write
 * that failed is not over before the reading side is. Returns what failed.
 */
export function readBeforeReset(socket: Socket): () => Error | undefined {
  let failure: Error | undefined;
  const held =
    (done: Written): Written =>
    (error) => {
      if (!isReset(error) || socket.destroyed || socket.readableEnded) {
        done(error);
        return;
      }
      // The reading side always gets the end as well.
      failure = error;
      socket.once("end", () => done(error));
    };
  const write = socket._write.bind(socket);
  const writev = socket._writev?.bind(socket);
  socket._write = (chunk, encoding, done) => write(chunk, encoding, held(done));
  if (writev !== undefined) socket._writev = (chunks, done) => writev(chunks, held(done));
  return () => failure;
}

/** Whether the other side has closed what was written to. */
export function isReset(error: NodeJS.ErrnoException | null | undefined): error is Error {
  return error?.code === "EPIPE" || error?.code === "ECONNRESET";
}
