/**
 * The limit of this design: node:http in front, undici dispatch behind, and nothing else. No policy,
 * no log, no metrics, no limits. Request headers are copied once into one plain object, response
 * headers go through without the hop-by-hop ones, and a body that arrives whole leaves in one write.
 */
import { createServer } from "node:http";
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";

import { Agent } from "undici";
import type { Dispatcher } from "undici";

import { announce, portOf } from "../ready.ts";
import { peerArguments } from "./arguments.ts";

const HOP_BY_HOP = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "proxy-authenticate",
  "proxy-authorization",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "expect",
]);

function endToEnd(headers: IncomingHttpHeaders): Record<string, string | string[]> {
  const kept: Record<string, string | string[]> = {};
  for (const name in headers) {
    const value = headers[name];
    if (value !== undefined && !HOP_BY_HOP.has(name)) {
      kept[name] = value;
    }
  }
  return kept;
}

class Handler implements Dispatcher.DispatchHandler {
  readonly #response: ServerResponse;
  #controller: Dispatcher.DispatchController | undefined;
  #length = -1;
  #seen = 0;

  constructor(response: ServerResponse) {
    this.#response = response;
    response.on("close", () => {
      if (!response.writableFinished) {
        this.#controller?.abort(new Error("client closed"));
      }
    });
    response.on("drain", () => this.#controller?.resume());
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    message?: string,
  ): void {
    const length = headers["content-length"];
    this.#length = length === undefined ? -1 : Number(length);
    this.#response.sendDate = false;
    this.#response.writeHead(status, message, endToEnd(headers));
    if (this.#length < 0) {
      this.#response.flushHeaders();
    }
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#seen += chunk.length;
    if (this.#seen === this.#length) {
      this.#response.end(chunk);
    } else if (!this.#response.write(chunk)) {
      controller.pause();
    }
  }

  onResponseEnd(): void {
    if (!this.#response.writableEnded) {
      this.#response.end();
    }
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.#response.headersSent) {
      this.#response.destroy(error);
    } else {
      this.#response.writeHead(502).end();
    }
  }
}

const { originHttp, reverse } = peerArguments();
const backend = `http://127.0.0.1:${originHttp}`;
const agent = new Agent({ pipelining: 1, allowH2: false, keepAliveTimeout: 4_000 });

function forward(request: IncomingMessage, response: ServerResponse): void {
  const url = request.url ?? "/";
  const slash = reverse ? 0 : url.indexOf("/", 7);
  const { method } = request;
  const hasBody =
    request.headers["content-length"] !== undefined ||
    request.headers["transfer-encoding"] !== undefined;
  agent.dispatch(
    {
      origin: reverse ? backend : url.slice(0, slash),
      path: reverse ? url : url.slice(slash),
      method: method ?? "GET",
      headers: endToEnd(request.headers),
      body: hasBody ? request : null,
    },
    new Handler(response),
  );
}

const server = createServer({ noDelay: true, keepAliveTimeout: 65_000 }, forward);
server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  announce({ proxy: portOf(server) });
});
// An orderly end, so that a profiler can write its file.
process.once("SIGTERM", () => process.exit(0));
