/**
 * The origin behind every proxy: prepared HTTP answers, the same inside TLS, and a raw TCP service (echo, endless
 * download, counted upload). Written on bare sockets, because it shares a core with the load
 * generator and must never be what is measured. Its only argument is where the authority of its certificate is written.
 */
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { Socket } from "node:net";
import tls from "node:tls";

import { TestAuthority } from "../test/support/certs.ts";

import { announce, portOf } from "./ready.ts";
import { ACK_EVERY_BYTES, DOWNLOAD, ECHO, HELLO_BYTES } from "./wire.ts";

const HEAD_END = Buffer.from("\r\n\r\n");
const LAST_CHUNK = Buffer.from("0\r\n\r\n");
const MAX_HEAD_BYTES = 64 * 1024;

function answer(status: string, bodyBytes: number): Buffer {
  return Buffer.concat([
    Buffer.from(
      `HTTP/1.1 ${status}\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: bench-origin\r\n` +
        `Content-Type: application/octet-stream\r\nCache-Control: no-store\r\n` +
        `Content-Length: ${bodyBytes}\r\n\r\n`,
    ),
    Buffer.alloc(bodyBytes, "x"),
  ]);
}

const SMALL = answer("200 OK", 1024);
const LARGE = answer("200 OK", 64 * 1024);
const STORED = answer("200 OK", 2);
const UNKNOWN = answer("404 Not Found", 0);
const UNAUTHORIZED = answer("401 Unauthorized", 0);

function select(head: string): Buffer {
  const path = head.slice(0, head.indexOf("\r\n"));
  if (path.includes("/exchanged/") && !/\r\nauthorization: bearer exchanged-/i.test(head)) {
    return UNAUTHORIZED;
  }
  if (path.includes("/1k ")) {
    return SMALL;
  }
  if (path.includes("/64k ")) {
    return LARGE;
  }
  return path.startsWith("POST ") ? STORED : UNKNOWN;
}

/** One HTTP connection; reads heads and bodies, answers with prepared bytes. */
class HttpConnection {
  readonly #socket: Socket;
  #pending: Buffer = Buffer.alloc(0);
  #reply: Buffer = UNKNOWN;
  #bodyLeft = 0;
  #chunked = false;
  #tail: Buffer = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk) => this.#read(chunk));
  }

  #read(chunk: Buffer): void {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#chunked) {
        // The bodies here are all "x", so the last chunk cannot appear inside one.
        const window = Buffer.concat([this.#tail, rest.subarray(-LAST_CHUNK.length)]);
        if (!window.subarray(-LAST_CHUNK.length).equals(LAST_CHUNK)) {
          this.#tail = window.subarray(-LAST_CHUNK.length);
          return;
        }
        this.#chunked = false;
        this.#socket.write(this.#reply);
        return;
      }
      if (this.#bodyLeft > 0) {
        const taken = Math.min(this.#bodyLeft, rest.length);
        this.#bodyLeft -= taken;
        rest = rest.subarray(taken);
        if (this.#bodyLeft === 0) {
          this.#socket.write(this.#reply);
        }
        continue;
      }
      rest = this.#readHead(rest);
    }
  }

  #readHead(chunk: Buffer): Buffer {
    const bytes = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    const end = bytes.indexOf(HEAD_END);
    if (end < 0) {
      if (bytes.length > MAX_HEAD_BYTES) {
        this.#socket.destroy();
      }
      this.#pending = bytes;
      return Buffer.alloc(0);
    }
    this.#pending = Buffer.alloc(0);
    const head = bytes.toString("latin1", 0, end + 4);
    const rest = bytes.subarray(end + 4);
    this.#reply = select(head);
    if (head.startsWith("GET ")) {
      this.#socket.write(this.#reply);
      return rest;
    }
    if (/\r\nexpect: *100-continue/i.test(head)) {
      this.#socket.write("HTTP/1.1 100 Continue\r\n\r\n");
    }
    if (/\r\ntransfer-encoding: *chunked/i.test(head)) {
      this.#chunked = true;
      this.#tail = Buffer.alloc(0);
      return rest;
    }
    this.#bodyLeft = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
    if (this.#bodyLeft === 0) {
      this.#socket.write(this.#reply);
    }
    return rest;
  }
}

const ZEROS = Buffer.alloc(256 * 1024);

function download(socket: Socket): void {
  const fill = (): void => {
    while (!socket.destroyed && socket.write(ZEROS)) {
      // Until the socket pushes back.
    }
  };
  socket.on("drain", fill);
  fill();
}

/** One raw connection: the hello, then the service it names. */
function serveRaw(socket: Socket): void {
  socket.setNoDelay(true);
  socket.on("error", () => socket.destroy());
  let head: Buffer = Buffer.alloc(0);
  let command = 0;
  let received = 0;
  const count = (bytes: number): void => {
    const before = Math.floor(received / ACK_EVERY_BYTES);
    received += bytes;
    const due = Math.floor(received / ACK_EVERY_BYTES) - before;
    if (due > 0) {
      socket.write(Buffer.alloc(due, "a"));
    }
  };
  const serve = (bytes: Buffer): void => {
    if (command === ECHO) {
      socket.write(bytes);
    } else if (command !== DOWNLOAD) {
      count(bytes.length);
    }
  };
  socket.on("data", (chunk) => {
    if (command !== 0) {
      serve(chunk);
      return;
    }
    head = head.length === 0 ? chunk : Buffer.concat([head, chunk]);
    if (head.length < HELLO_BYTES) {
      return;
    }
    command = head[0] ?? 0;
    if (command === DOWNLOAD) {
      download(socket);
    }
    if (head.length > HELLO_BYTES) {
      serve(head.subarray(HELLO_BYTES));
    }
    head = Buffer.alloc(0);
  });
}

function serveHttp(socket: Socket): void {
  const connection = new HttpConnection(socket);
  void connection;
}

const authority = await TestAuthority.create();
writeFileSync(process.argv[2] ?? "/dev/null", authority.caPem);
const http = createServer(serveHttp);
const secure = tls.createServer(await authority.server(["localhost"]), serveHttp);
const raw = createServer(serveRaw);
await Promise.all(
  [http, secure, raw].map(
    (server) =>
      new Promise<void>((resolve) => {
        server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, resolve);
      }),
  ),
);
announce({ http: portOf(http), tls: portOf(secure), raw: portOf(raw) });
