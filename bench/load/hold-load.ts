/** Many connections held open and idle, each after one round trip. */
import { connect } from "node:net";
import type { Socket } from "node:net";

import { HELLO_BYTES } from "../wire.ts";
import { askOnce, openSecure } from "./bridge-load.ts";
import { Tally } from "./command.ts";
import type { HoldLoad, LoadResult } from "./command.ts";
import { roundTrip } from "./tunnel-load.ts";
import { openTunnel } from "./tunnel.ts";

const OPENERS = 32;
const MAX_FAILURES = 50;

const held: Socket[] = [];

async function openPlain(load: HoldLoad & { readonly kind: "keep-alive" }): Promise<Socket> {
  return await new Promise((resolve, reject) => {
    let seen = 0;
    const socket = connect({ port: load.port, host: "127.0.0.1", noDelay: true });
    socket.once("error", reject).once("close", () => reject(new Error("closed")));
    socket.on("connect", () => socket.write(load.head));
    socket.on("data", (bytes) => {
      // The first bytes have the head; a body of a known size is last.
      seen += bytes.length;
      if (seen > load.expectBytes) resolve(socket);
    });
  });
}

async function openOne(load: HoldLoad): Promise<Socket> {
  if (load.kind === "keep-alive") return await openPlain(load);
  if (load.kind === "bridged") {
    const socket = await openSecure(load, "http/1.1");
    await askOnce(socket, load.head, load.expectBytes);
    return socket;
  }
  // A buffer of its own: a held tunnel must not keep a large one.
  const tunnel = await openTunnel(load, Buffer.allocUnsafeSlow(HELLO_BYTES * 16));
  await roundTrip(tunnel);
  return tunnel.socket;
}

/** Opens `count` connections and keeps them. */
export async function holdLoad(load: HoldLoad): Promise<LoadResult> {
  const tally = new Tally();
  const startedAt = performance.now();
  let next = 0;
  const opener = async (): Promise<void> => {
    while (next < load.count && tally.failed < MAX_FAILURES) {
      next += 1;
      const began = performance.now();
      try {
        const socket = await openOne(load);
        socket.removeAllListeners("close");
        socket.on("error", () => undefined);
        socket.on("close", () => tally.fail("a held connection was closed"));
        held.push(socket);
        tally.record(performance.now() - began);
      } catch (error) {
        tally.fail(String(error));
      }
    }
  };
  await Promise.all(Array.from({ length: OPENERS }, opener));
  return tally.result((performance.now() - startedAt) / 1000);
}

/** Closes every held connection; `count` is how many were still open. */
export function releaseLoad(): LoadResult {
  const tally = new Tally();
  for (const socket of held.splice(0)) {
    if (!socket.destroyed) tally.record(0);
    socket.removeAllListeners("close");
    socket.destroy();
  }
  return tally.result(0);
}
