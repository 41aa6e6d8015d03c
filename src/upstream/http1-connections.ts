/** The connections of undici's pools, corrected where a response would otherwise be lost or truncated unnoticed. */
import type { Socket } from "node:net";
import { createRequire } from "node:module";
import type { buildConnector } from "undici";

/** undici's parser of one connection, as far as it is corrected. */
interface Parser {
  onHeadersComplete(status: number, upgrade: boolean, shouldKeepAlive: boolean): number;
  /** The connection ended; returns the error that the response ended with. */
  finish(): Error | null;
}

type Written = (error?: Error | null) => void;

const { kParser } = createRequire(import.meta.url)("undici/lib/core/symbols.js") as {
  readonly kParser: symbol;
};

/** The status that handlers get instead of 100: an unregistered interim response. */
const renamedContinue = 199;

/** Whether an interim response is `100 Continue`, which is for the sender of an Expect field. */
export function isContinue(status: number): boolean {
  return status === 100 || status === renamedContinue;
}

/** How a pool gets its connections. */
export function connector(open: () => Promise<Socket>): buildConnector.connector {
  return (_options, callback) => {
    open().then(
      (socket) => {
        const failure = readBeforeReset(socket);
        callback(null, socket);
        correct(socket, failure);
      },
      (error: unknown) =>
        callback(error instanceof Error ? error : new Error(String(error), { cause: error }), null),
    );
  };
}

/** Changes undici's own parser: a second one in front of it could disagree with it on where a message begins. */
function correct(socket: Socket, failure: () => Error | undefined): void {
  // Absent when the pool was closed meanwhile.
  const parser = (socket as Socket & Readonly<Record<symbol, Parser | null | undefined>>)[kParser];
  if (parser === undefined || parser === null) return;
  const onHeadersComplete = parser.onHeadersComplete.bind(parser);
  const finish = parser.finish.bind(parser);
  // undici takes a 100 for a broken response; a client has to expect one at any time (RFC 9110 section 15.2).
  parser.onHeadersComplete = (status, ...rest) =>
    onHeadersComplete(status === 100 ? renamedContinue : status, ...rest);
  // A response that ends with its connection is whole only where that was closed, and not reset.
  parser.finish = () => socket.errored ?? failure() ?? finish();
}

/**
 * Keeps bytes before a reset readable: an origin that refuses an upload early responds, and closes with unread bytes.
 *
 * Node destroys a socket as soon as a write fails, although the kernel may still hold a response. Returns what failed.
 */
function readBeforeReset(socket: Socket): () => Error | undefined {
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

function isReset(error: NodeJS.ErrnoException | null | undefined): error is Error {
  return error?.code === "EPIPE" || error?.code === "ECONNRESET";
}
