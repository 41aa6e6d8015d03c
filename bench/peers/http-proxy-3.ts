/** http-proxy-3 at its best: a keep-alive agent. Forward: the target is taken from the request. */
import { Agent, createServer } from "node:http";

import { createProxyServer } from "http-proxy-3";

import { announce, portOf } from "../ready.ts";
import { peerArguments } from "./arguments.ts";

const { originHttp, reverse } = peerArguments();
const agent = new Agent({ keepAlive: true, maxSockets: Infinity });
const proxy = createProxyServer({ agent });
proxy.on("error", (_error, _request, response) => {
  if ("writeHead" in response && !response.headersSent) {
    response.writeHead(502);
  }
  response.end();
});

const backend = `http://127.0.0.1:${originHttp}`;
const server = createServer({ noDelay: true, keepAliveTimeout: 65_000 }, (request, response) => {
  if (reverse) {
    proxy.web(request, response, { target: backend });
    return;
  }
  const url = request.url ?? "/";
  const slash = url.indexOf("/", 7);
  request.url = url.slice(slash);
  proxy.web(request, response, { target: url.slice(0, slash) });
});
server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  announce({ proxy: portOf(server) });
});
// An orderly end, so that a profiler can write its file.
process.once("SIGTERM", () => process.exit(0));
