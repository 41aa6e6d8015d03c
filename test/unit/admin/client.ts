import { request, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";
import {
  AdminServer,
  type AdminRoute,
  type AdminServerOptions,
} from "../../../src/admin/server.ts";
import { createLogger } from "../../../src/telemetry/log.ts";

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export interface Served {
  readonly server: AdminServer;
  readonly port: number;
  readonly get: (path: string, options?: Ask) => Promise<Answer>;
  /** An answer whose body is still coming. */
  readonly open: (path: string, options?: Ask) => Promise<IncomingMessage>;
}

interface Ask {
  readonly method?: string;
  readonly headers?: Record<string, string>;
}

/** Serves routes on a free loopback port until the test is over. */
export async function serve(
  routes: readonly AdminRoute[],
  options: Pick<AdminServerOptions, "secret" | "corsOrigins" | "evictions"> = {},
): Promise<Served> {
  const log = createLogger("silent");
  const server = new AdminServer({ name: "test", routes, log, ...options });
  const { port }: AddressInfo = await server.listen({ host: "127.0.0.1", port: 0 });
  onTestFinished(() => server.close());
  const open = (path: string, { method = "GET", headers = {} }: Ask = {}) =>
    new Promise<IncomingMessage>((resolve, reject) => {
      request({ host: "127.0.0.1", port, path, method, headers, agent: false }, resolve)
        .on("error", reject)
        .end();
    });
  const get = async (path: string, ask?: Ask): Promise<Answer> => {
    const response = await open(path, ask);
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    return {
      status: response.statusCode ?? 0,
      headers: response.headers,
      body: Buffer.concat(chunks).toString(),
    };
  };
  return { server, port, get, open };
}

/** Reads a stream until its text contains `end`. */
export async function readUntil(stream: IncomingMessage, end: string): Promise<string> {
  let text = "";
  return new Promise((resolve, reject) => {
    stream.setEncoding("utf8");
    stream.on("data", (chunk: string) => {
      text += chunk;
      if (text.includes(end)) resolve(text);
    });
    stream.on("error", reject);
    stream.resume();
    stream.on("close", () => reject(new Error(`closed after: ${text}`)));
  });
}
