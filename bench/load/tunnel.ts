/** Opens one tunnel through a proxy (or straight, for a relay that needs no CONNECT). */
import { connect } from "node:net";
import type { Socket } from "node:net";

import type { Route } from "./command.ts";

const HEAD_END = "\r\n\r\n";
const OPEN_TIMEOUT_MS = 10_000;
const MAX_HEAD_BYTES = 16 * 1024;

export interface OpenTunnel {
  readonly socket: Socket;
  /** Takes the bytes from here on; until it is set the reader is the CONNECT answer's. */
  onBytes: (bytes: Buffer) => void;
}

/** A tunnel after its 200. The caller owns the socket; without a buffer to read into it is a stream as any other. */
export async function openTunnel(
  route: Route,
  readBuffer: Buffer | undefined,
): Promise<OpenTunnel> {
  return await new Promise((resolve, reject) => {
    let head = "";
    const tunnel: OpenTunnel = {
      socket: connect({
        port: route.port,
        host: "127.0.0.1",
        noDelay: true,
        ...(readBuffer === undefined
          ? {}
          : {
              onread: {
                buffer: readBuffer,
                callback: (length: number, buffer: Uint8Array) => {
                  tunnel.onBytes(Buffer.from(buffer.buffer, buffer.byteOffset, length));
                  return true;
                },
              },
            }),
      }),
      onBytes: (bytes) => {
        head += bytes.toString("latin1");
        if (head.endsWith(HEAD_END) && /^HTTP\/1\.[01] 200 /.test(head)) {
          settle(undefined);
        } else if (head.includes(HEAD_END) || head.length > MAX_HEAD_BYTES) {
          settle(new Error(`CONNECT answered ${head.slice(0, 60)}`));
        }
      },
    };
    const onData = (bytes: Buffer): void => tunnel.onBytes(bytes);
    if (readBuffer === undefined) tunnel.socket.on("data", onData);
    const timer = setTimeout(() => settle(new Error("CONNECT timed out")), OPEN_TIMEOUT_MS);
    const onClose = (): void => settle(new Error("closed before the CONNECT answer"));
    const settle = (error: Error | undefined): void => {
      clearTimeout(timer);
      tunnel.socket.off("close", onClose).off("data", onData);
      if (error === undefined) {
        resolve(tunnel);
      } else {
        tunnel.socket.destroy();
        reject(error);
      }
    };
    tunnel.socket.on("error", (error) => settle(error));
    tunnel.socket.on("close", onClose);
    tunnel.socket.on("connect", () => {
      if (route.authority === undefined) {
        settle(undefined);
      } else {
        tunnel.socket.write(
          `CONNECT ${route.authority} HTTP/1.1\r\nHost: ${route.authority}\r\n\r\n`,
        );
      }
    });
  });
}
