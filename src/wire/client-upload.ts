/** The body of one request on its way into the socket of an origin. */
import type { Socket } from "node:net";
import type { BodySink } from "../http/body-source.ts";
import {
  type ClientBody,
  expectsContent,
  type OutgoingHead,
  wrongLength,
} from "./client-request.ts";

/** Who hears how an upload ends. */
export interface UploadOwner {
  /** The request has left whole. */
  uploaded(): void;
  uploadFailed(error: Error): void;
}

/** A body that is shorter is copied into the same buffer as the head before it: one write and no list of buffers. */
const smallBytes = 8_192;

/** Writes a head and a whole body in one write. */
export function writeWhole(socket: Socket, head: string, body: Buffer): void {
  if (body.length > smallBytes) {
    socket.cork();
    socket.write(head, "latin1");
    socket.write(body);
    socket.uncork();
    return;
  }
  const bytes = Buffer.allocUnsafe(head.length + body.length);
  bytes.write(head, 0, "latin1");
  body.copy(bytes, head.length);
  socket.write(bytes);
}

/** Sends a streamed body, as fast as the origin takes it. */
export class ClientUpload implements BodySink {
  readonly #socket: Socket;
  readonly #body: ClientBody;
  readonly #owner: UploadOwner;
  readonly #expectsContent: boolean;
  /** The head, until it has left. */
  #head: string;
  /** Bytes that are still to come; undefined for a body in chunks. */
  #left: number | undefined;
  #isOver = false;

  constructor(
    socket: Socket,
    { body, method }: { readonly body: ClientBody; readonly method: string },
    head: OutgoingHead,
    owner: UploadOwner,
  ) {
    this.#socket = socket;
    this.#body = body;
    this.#owner = owner;
    this.#expectsContent = expectsContent(method);
    this.#head = head.text;
    this.#left = head.length;
  }

  /** False once the request has left whole, or is given up. */
  get isRunning(): boolean {
    return !this.#isOver;
  }

  /** The kernel has all that was written. */
  get isDrained(): boolean {
    return this.#socket.writableLength === 0;
  }

  /** Sends the head with what there is of the body, or alone where nothing comes in this turn. */
  start(): void {
    this.#body.open(this);
    if (this.#isUnsent) setImmediate(flushHead, this);
  }

  flushHead(): void {
    if (this.#isOver || !this.#isUnsent) return;
    this.#socket.write(this.#takeHead(), "latin1");
  }

  /** The origin takes more. */
  resume(): void {
    if (!this.#isOver) this.#body.resume();
  }

  /** Nothing more is sent. */
  stop(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#body.detach(this);
  }

  data(chunk: Buffer): boolean {
    if (this.#isOver) return false;
    if (chunk.length === 0) return true;
    if (this.#left !== undefined) {
      if (chunk.length > this.#left) {
        this.#fail(wrongLength());
        return false;
      }
      this.#left -= chunk.length;
      if (this.#isUnsent) writeWhole(this.#socket, this.#takeHead(), chunk);
      else this.#socket.write(chunk);
      return !this.#socket.writableNeedDrain;
    }
    const size = `${chunk.length.toString(16)}\r\n`;
    this.#socket.cork();
    writeWhole(this.#socket, this.#isUnsent ? this.#takeHead() + size : size, chunk);
    const hasRoom = this.#socket.write("\r\n", "latin1");
    this.#socket.uncork();
    return hasRoom;
  }

  end(): void {
    if (this.#isOver) return;
    if (this.#left !== undefined && this.#left > 0) {
      this.#fail(wrongLength());
      return;
    }
    this.#isOver = true;
    if (this.#isUnsent) {
      // Nothing came: a length says so to every server.
      const isTold = this.#left !== undefined || !this.#expectsContent;
      this.#socket.write(`${this.#head}${isTold ? "" : "content-length: 0\r\n"}\r\n`, "latin1");
      this.#head = "";
    } else if (this.#left === undefined) this.#socket.write("0\r\n\r\n", "latin1");
    this.#owner.uploaded();
  }

  fail(error: Error): void {
    if (!this.#isOver) this.#fail(error);
  }

  get #isUnsent(): boolean {
    return this.#head !== "";
  }

  #takeHead(): string {
    const head = this.#head;
    this.#head = "";
    return this.#left === undefined ? `${head}transfer-encoding: chunked\r\n\r\n` : `${head}\r\n`;
  }

  #fail(error: Error): void {
    this.stop();
    this.#owner.uploadFailed(error);
  }
}

function flushHead(upload: ClientUpload): void {
  upload.flushHead();
}
