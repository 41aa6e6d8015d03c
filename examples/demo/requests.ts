/** The requests of the demo's callers: plain, through a proxy, and CONNECT. */
import { request, type RequestOptions } from "node:http";
import type { Socket } from "node:net";

/** What came back. */
export interface Answer {
  readonly status: number;
  /** `error` of a JSON answer: the code of a refusal. */
  readonly code: string | undefined;
}

const limitMs = 10_000;

/** GET of an address, straight to its host. */
export function get(url: string, token?: string): Promise<Answer> {
  const { hostname, port, pathname } = new URL(url);
  return send({ agent: false, host: hostname, port, path: pathname, headers: bearer(token) });
}

/** GET of an address through the forward proxy, in absolute form (RFC 9112 section 3.2.2). */
export function getThrough(proxyPort: number, url: string, token?: string): Promise<Answer> {
  const headers = { host: new URL(url).host, ...bearer(token) };
  return send({ agent: false, host: "127.0.0.1", port: proxyPort, path: url, headers });
}

/** CONNECT to an authority; when the tunnel opens, one GET / through it. */
export function connectThrough(proxyPort: number, authority: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = request({
      host: "127.0.0.1",
      port: proxyPort,
      method: "CONNECT",
      headers: { host: authority },
      path: authority,
    });
    call.setTimeout(limitMs, () => call.destroy(new Error("no answer")));
    call.once("error", reject);
    call.once("connect", (response, socket: Socket, head: Buffer) => {
      const status = response.statusCode ?? 0;
      if (status === 200) {
        const headers = { host: authority };
        send({ createConnection: () => socket, path: "/", headers }).then(resolve, reject);
        return;
      }
      const chunks = [head];
      socket.on("data", (chunk: Buffer) => chunks.push(chunk));
      socket.once("close", () => resolve(answerOf(status, Buffer.concat(chunks).toString())));
      socket.once("error", reject);
    });
    call.end();
  });
}

function send(options: RequestOptions): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = request(options, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.once("error", reject);
      response.once("end", () =>
        resolve(answerOf(response.statusCode ?? 0, Buffer.concat(chunks).toString())),
      );
    });
    call.setTimeout(limitMs, () => call.destroy(new Error("no answer")));
    call.once("error", reject);
    call.end();
  });
}

function bearer(token: string | undefined): { authorization?: string } {
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}

function answerOf(status: number, body: string): Answer {
  const code = /"error":"([^"]+)"/.exec(body)?.[1];
  return { status, code };
}
