/** The connections of undici's pools, corrected where a response would otherwise be lost or truncated unnoticed. */
import type { Socket } from "node:net";
import { createRequire } from "node:module";
import type { Duplex } from "node:stream";
import type { buildConnector } from "undici";
import type { BodySink } from "../http/body-source.ts";
import type { ResponseHandler } from "../http/response-handler.ts";
import type { Dispatcher } from "./undici.ts";
import type { StreamedBody } from "./upstream.ts";

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

type Controller = Dispatcher.DispatchController;
type UndiciFields = Record<string, string | string[] | undefined>;

/** undici's handler over ours. */
export class UndiciHandler implements Dispatcher.DispatchHandler {
  readonly #handler: ResponseHandler;

  constructor(handler: ResponseHandler) {
    this.#handler = handler;
  }

  onRequestStart(controller: Controller): void {
    this.#handler.onRequestStart(controller);
  }

  onResponseStarted(): void {
    this.#handler.onResponseStarted();
  }

  onRequestUpgrade(
    controller: Controller,
    status: number,
    _fields: UndiciFields,
    socket: Duplex,
  ): void {
    // undici has put back what came behind the head.
    const headers = flat(controller.rawHeaders);
    this.#handler.onUpgrade(status, headers, socket, Buffer.alloc(0));
  }

  onResponseStart(
    controller: Controller,
    status: number,
    _fields: UndiciFields,
    reason?: string,
  ): void {
    const headers = flat(controller.rawHeaders);
    if (status >= 200) this.#handler.onResponseStart(controller, status, headers, reason);
    else {
      const own = status === renamedContinue ? 100 : status;
      this.#handler.onInformational(controller, own, headers);
    }
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    this.#handler.onResponseData(controller, chunk);
  }

  onResponseEnd(controller: Controller): void {
    this.#handler.onResponseEnd(controller, flat(controller.rawTrailers));
  }

  onResponseError(controller: Controller, error: Error): void {
    this.#handler.onResponseError(controller, error);
  }
}

function flat(raw: Controller["rawHeaders"]): string[] {
  return Array.isArray(raw) ? raw.map((text) => text.toString("latin1")) : [];
}

/** A pushed body as the iterable that undici takes. */
export async function* chunksOf(body: StreamedBody): AsyncGenerator<Buffer, void, undefined> {
  const waiting: Buffer[] = [];
  let isOver = false;
  let failure: Error | undefined;
  let wake: (() => void) | undefined;
  const sink: BodySink = {
    data: (chunk) => {
      waiting.push(chunk);
      wake?.();
      return false;
    },
    end: () => {
      isOver = true;
      wake?.();
    },
    fail: (error) => {
      failure = error;
      wake?.();
    },
  };
  body.open(sink);
  try {
    for (;;) {
      const chunk = waiting.shift();
      if (chunk !== undefined) {
        yield chunk;
        body.resume();
      } else if (failure !== undefined) throw failure;
      else if (isOver) return;
      else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    body.detach(sink);
  }
}
