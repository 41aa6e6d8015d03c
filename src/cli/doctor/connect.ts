/** One CONNECT through a proxy, as a client makes it, and the TLS handshake of the bridge inside. */
import http from "node:http";
import type { Socket } from "node:net";
import tls from "node:tls";
import { messageOf } from "../../errors.ts";

/** What to ask of which proxy. */
export interface ConnectRequest {
  readonly proxy: { readonly host: string; readonly port: number };
  readonly host: string;
  readonly port: number;
  readonly signal: AbortSignal;
}

/** The response; the socket is the caller's to destroy. */
export interface ConnectResponse {
  readonly status: number;
  readonly socket: Socket;
}

/** Rejects when the proxy cannot be reached or does not respond in HTTP. */
export function connectThrough(request: ConnectRequest): Promise<ConnectResponse> {
  const { proxy, host, port, signal } = request;
  return new Promise((resolve, reject) => {
    const path = `${host}:${port}`;
    const connect = http.request({
      ...proxy,
      method: "CONNECT",
      path,
      headers: { Host: path },
      agent: false,
      signal,
    });
    connect.on("error", reject);
    connect.on("connect", (response, socket) => {
      socket.on("error", ignore);
      resolve({ status: response.statusCode ?? 0, socket });
    });
    connect.end();
  });
}

/** A verified handshake that trusts `ca` alone, or why it failed. */
export function verifiedTls(
  socket: Socket,
  name: string,
  ca: string,
  signal: AbortSignal,
): Promise<tls.TLSSocket | string> {
  return new Promise((resolve) => {
    const secured = tls.connect({ socket, servername: name, ca, ALPNProtocols: ["http/1.1"] });
    const onAbort = (): void => {
      secured.destroy();
      resolve("the handshake took too long");
    };
    signal.addEventListener("abort", onAbort, { once: true });
    secured.on("error", (error) => {
      const code = "code" in error && typeof error.code === "string" ? ` (${error.code})` : "";
      resolve(`${messageOf(error)}${code}`);
    });
    secured.once("close", () => resolve("the connection was closed during the handshake"));
    secured.once("secureConnect", () => resolve(secured));
  });
}

/** One GET over a connection that is there; the status and the body. */
export function getOver(
  socket: Socket,
  host: string,
  signal: AbortSignal,
): Promise<{ readonly status: number; readonly body: string }> {
  return new Promise((resolve, reject) => {
    const request = http.get(
      {
        path: "/",
        headers: { Host: host, Connection: "close" },
        createConnection: () => socket,
        signal,
      },
      (response) => {
        let body = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => {
          body += chunk;
          if (body.length > maxBodyChars) request.destroy(new Error("the answer is too long"));
        });
        response.on("error", reject);
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
      },
    );
    request.on("error", reject);
  });
}

const maxBodyChars = 65_536;

function ignore(): void {
  // `close` or the next read says it.
}
