/** A stream of HTTP/2 that carries a tunnel, with as much of a socket as tunnels use (RFC 9113 section 8.5). */
import { constants, type ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";

type Done = (error?: Error | null) => void;

/** END_STREAM is its FIN, and a reset of the stream its RST. */
export class StreamSocket extends Duplex {
  bytesRead = 0;
  bytesWritten = 0;
  readonly remoteAddress: string | undefined;
  readonly remotePort: number | undefined;
  readonly localAddress: string | undefined;
  readonly localPort: number | undefined;
  readonly #stream: ServerHttp2Stream;

  /** `carrier` is the connection that the stream is one of. */
  constructor(stream: ServerHttp2Stream, carrier: Socket) {
    super({ allowHalfOpen: true });
    this.#stream = stream;
    ({
      remoteAddress: this.remoteAddress,
      remotePort: this.remotePort,
      localAddress: this.localAddress,
      localPort: this.localPort,
    } = carrier);
    stream.on("data", (chunk: Buffer) => {
      this.bytesRead += chunk.length;
      if (!this.push(chunk)) stream.pause();
    });
    stream.pause();
    stream.on("end", () => this.push(null));
    stream.on("error", ignore);
    stream.on("close", () => this.#closed());
  }

  /** The same object with the type of what it stands for. */
  get asSocket(): Socket {
    return this as unknown as Socket;
  }

  destroySoon(): void {
    this.end();
    if (this.writableFinished) this.destroy();
    else this.once("finish", () => this.destroy());
  }

  override _read(): void {
    this.#stream.resume();
  }

  override _write(chunk: Buffer, _encoding: string, done: Done): void {
    this.bytesWritten += chunk.length;
    this.#stream.write(chunk, done);
  }

  override _writev(parts: { readonly chunk: Buffer }[], done: Done): void {
    const chunks = parts.map(({ chunk }) => chunk);
    this._write(Buffer.concat(chunks), "buffer", done);
  }

  override _final(done: Done): void {
    // A refusal has ended it with its body.
    if (this.#stream.writableEnded || this.#stream.destroyed) done();
    else this.#stream.end(() => done());
  }

  override _destroy(error: Error | null, done: Done): void {
    const stream = this.#stream;
    if (!stream.destroyed) {
      const isWhole = this.writableFinished;
      stream.close(isWhole ? constants.NGHTTP2_NO_ERROR : constants.NGHTTP2_CONNECT_ERROR);
      // What is queued would wait for a client that may never read; of a whole one nothing is.
      if (!isWhole) stream.destroy();
      // A stream with unread bytes is never closed.
      stream.removeAllListeners("data");
      stream.resume();
    }
    done(error);
  }

  #closed(): void {
    // What was read before the end is still on its way.
    if (this.#stream.readableEnded && this.writableFinished) return;
    this.destroy(new Error("the stream of the tunnel was reset"));
  }
}

function ignore(): void {
  // `close` follows.
}
