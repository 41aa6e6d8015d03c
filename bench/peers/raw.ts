/**
 * The limit under every design in Node: bytes from one bare socket to another, and just enough of HTTP to know where a
 * message ends. No checks, no limits, no log; what is not asked of it here (chunked bodies, upgrades, errors) it cannot do.
 */
import { connect, createServer } from "node:net";
import type { Socket } from "node:net";

import { announce, portOf } from "../ready.ts";
import { peerArguments } from "./arguments.ts";

const { originHttp, reverse } = peerArguments();
const idle: Upstream[] = [];

/** Where one message ends in a stream of them. */
class Message {
  #head = "";
  #left = 0;

  /** Takes bytes of one message; the head when it is complete with them, and whether the message is. */
  take(bytes: Buffer): { head: string | undefined; body: Buffer; isWhole: boolean } {
    if (this.#left > 0) {
      this.#left -= bytes.length;
      return { head: undefined, body: bytes, isWhole: this.#left === 0 };
    }
    const end = bytes.indexOf("\r\n\r\n");
    if (end < 0) {
      this.#head += bytes.toString("latin1");
      return { head: undefined, body: Buffer.alloc(0), isWhole: false };
    }
    const head = this.#head + bytes.toString("latin1", 0, end + 4);
    this.#head = "";
    const body = bytes.subarray(end + 4);
    const at = head.search(/\r\ncontent-length: /i);
    this.#left = (at < 0 ? 0 : Number.parseInt(head.slice(at + 18), 10)) - body.length;
    return { head, body, isWhole: this.#left === 0 };
  }
}

class Upstream {
  readonly socket: Socket;
  readonly #response = new Message();
  client: Socket | undefined;

  constructor() {
    this.socket = connect({ port: originHttp, host: "127.0.0.1", noDelay: true });
    this.socket.on("error", () => this.client?.destroy());
    this.socket.on("close", () => this.client?.destroy());
    this.socket.on("data", (bytes) => {
      const { isWhole } = this.#response.take(bytes);
      const { client } = this;
      if (client !== undefined && !client.write(bytes)) {
        this.socket.pause();
        client.once("drain", () => this.socket.resume());
      }
      if (isWhole) {
        this.client = undefined;
        idle.push(this);
      }
    });
  }
}

const server = createServer({ noDelay: true }, (client) => {
  const request = new Message();
  let upstream: Upstream | undefined;
  client.on("error", () => undefined);
  client.on("close", () => {
    if (upstream?.client === client) upstream.socket.destroy();
  });
  client.on("data", (bytes) => {
    const { head, body } = request.take(bytes);
    if (head === undefined) {
      if (body.length > 0 && upstream?.socket.write(body) === false) {
        client.pause();
        upstream.socket.once("drain", () => client.resume());
      }
      return;
    }
    upstream = idle.pop() ?? new Upstream();
    upstream.client = client;
    const target = head.indexOf(" ") + 1;
    const path = reverse ? target : head.indexOf("/", target + 7);
    upstream.socket.cork();
    upstream.socket.write(head.slice(0, target) + head.slice(path), "latin1");
    if (body.length > 0) upstream.socket.write(body);
    upstream.socket.uncork();
  });
});
server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  announce({ proxy: portOf(server) });
});
// An orderly end, so that a profiler can write its file.
process.once("SIGTERM", () => process.exit(0));
