/** A socket in memory: what the test gives is read from it, and what is written to it is kept. */
import type { Socket } from "node:net";
import { Duplex } from "node:stream";

/** As much of a net.Socket as the engine uses. */
export class MemorySocket extends Duplex {
  written = "";
  bytesRead = 0;
  bytesWritten = 0;

  constructor() {
    super({ allowHalfOpen: true });
  }

  /** The same object with the type that the engine asks for. */
  get asSocket(): Socket {
    return this as unknown as Socket;
  }

  override _read(): void {
    // Bytes come when the test gives some.
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.written += chunk.toString("latin1");
    this.bytesWritten += chunk.length;
    done();
  }

  give(bytes: Buffer): void {
    this.bytesRead += bytes.length;
    this.push(bytes);
  }

  destroySoon(): void {
    this.end();
    this.destroy();
  }
}
