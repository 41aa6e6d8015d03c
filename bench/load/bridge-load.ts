/** HTTPS through a proxy that opens it: requests over kept connections, over HTTP/2, or each over a connection of its own. */
import http2 from "node:http2";
import tls from "node:tls";
import type { TLSSocket } from "node:tls";

import { Tally } from "./command.ts";
import type { BridgeLoad, LoadResult } from "./command.ts";
import { openTunnel } from "./tunnel.ts";

const MAX_FAILURES = 50;
const STREAMS = 8;

/** A tunnel with TLS inside. Whose certificate it is is the proxy's business to check, and the client's is not measured. */
export async function openSecure(
  route: { readonly port: number; readonly authority: string },
  protocol: string,
): Promise<TLSSocket> {
  // A socket that TLS takes over must not have a buffer of its own to read into.
  const { socket } = await openTunnel(route, undefined);
  return await new Promise((resolve, reject) => {
    const secured = tls.connect({
      socket,
      servername: route.authority.replace(/:\d+$/, ""),
      rejectUnauthorized: false,
      ALPNProtocols: [protocol],
    });
    secured.once("error", reject);
    secured.once("secureConnect", () => {
      secured.off("error", reject).on("error", () => undefined);
      if (secured.alpnProtocol === protocol) resolve(secured);
      else reject(new Error(`${protocol} was asked, ${String(secured.alpnProtocol)} agreed`));
    });
  });
}

/** One request on a connection that is open; rejects unless the answer is 200 and has the bytes that it should. */
export function askOnce(socket: TLSSocket, head: string, bodyBytes: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = "";
    const done = (problem?: string): void => {
      socket.off("data", onData).off("close", onClose);
      if (problem === undefined) resolve();
      else reject(new Error(problem));
    };
    const onClose = (): void => done("closed before the answer was complete");
    const onData = (chunk: Buffer): void => {
      text += chunk.toString("latin1");
      const end = text.indexOf("\r\n\r\n");
      if (end < 0 || text.length < end + 4 + bodyBytes) return;
      done(text.startsWith("HTTP/1.1 200 ") ? undefined : text.slice(0, 80));
    };
    socket.on("data", onData).once("close", onClose);
    socket.write(head);
  });
}

async function repeat(
  load: BridgeLoad,
  tally: Tally,
  once: () => Promise<void>,
  deadline: number,
): Promise<void> {
  while (performance.now() < deadline && tally.failed < MAX_FAILURES) {
    const began = performance.now();
    try {
      await once();
      tally.record(performance.now() - began);
    } catch (error) {
      tally.fail(String(error));
      if (load.protocol !== "fresh") return;
    }
  }
}

function askStream(
  session: http2.ClientHttp2Session,
  path: string,
  bodyBytes: number,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ":path": path });
    let seen = 0;
    let status = 0;
    stream.on("response", (headers) => {
      status = headers[":status"] ?? 0;
    });
    stream.on("data", (chunk: Buffer) => {
      seen += chunk.length;
    });
    stream.on("error", reject);
    stream.on("end", () => {
      if (status === 200 && seen === bodyBytes) resolve();
      else reject(new Error(`status ${status}, ${seen} body bytes`));
    });
  });
}

/** Runs one load to its end. */
export async function bridgeLoad(load: BridgeLoad): Promise<LoadResult> {
  const tally = new Tally();
  const head = `GET ${load.path} HTTP/1.1\r\nHost: ${load.authority}\r\nUser-Agent: bench\r\n\r\n`;
  const count = load.protocol === "h2" ? load.connections / STREAMS : load.connections;
  const open =
    load.protocol === "fresh"
      ? []
      : await Promise.all(
          Array.from({ length: count }, () =>
            openSecure(load, load.protocol === "h2" ? "h2" : "http/1.1"),
          ),
        );
  const startedAt = performance.now();
  const deadline = startedAt + load.seconds * 1000;
  const run = (once: () => Promise<void>): Promise<void> => repeat(load, tally, once, deadline);
  if (load.protocol === "fresh") {
    await Promise.all(
      Array.from({ length: load.connections }, () =>
        run(async () => {
          const socket = await openSecure(load, "http/1.1");
          await askOnce(socket, head, load.expectBytes);
          socket.destroy();
        }),
      ),
    );
  } else if (load.protocol === "h1") {
    await Promise.all(open.map((socket) => run(() => askOnce(socket, head, load.expectBytes))));
  } else {
    const sessions = open.map((socket) =>
      http2.connect(`https://${load.authority}`, { createConnection: () => socket }),
    );
    for (const session of sessions) session.on("error", (error) => tally.fail(String(error)));
    await Promise.all(
      sessions.flatMap((session) =>
        Array.from({ length: STREAMS }, () =>
          run(() => askStream(session, load.path, load.expectBytes)),
        ),
      ),
    );
    for (const session of sessions) session.destroy();
  }
  const seconds = (performance.now() - startedAt) / 1000;
  for (const socket of open) socket.destroy();
  return tally.result(seconds);
}
