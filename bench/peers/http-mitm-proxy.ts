/** http-mitm-proxy: plain HTTP through its own chain of handlers, with a keep-alive agent. */
import { mkdtempSync, rmSync } from "node:fs";
import { Agent } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Proxy } from "http-mitm-proxy";

import { announce } from "../ready.ts";

const sslCaDir = mkdtempSync(join(tmpdir(), "bench-mitm-"));
process.once("exit", () => rmSync(sslCaDir, { recursive: true, force: true }));
process.once("SIGTERM", () => process.exit(0));

const proxy = new Proxy();
proxy.onError(() => undefined);
const agent = new Agent({ keepAlive: true, maxSockets: Infinity });
proxy.listen({ port: 0, host: "127.0.0.1", sslCaDir, keepAlive: true, httpAgent: agent }, () => {
  announce({ proxy: proxy.httpPort });
});
