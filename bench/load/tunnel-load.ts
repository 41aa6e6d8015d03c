/** Tunnel loads: tunnels per second and bytes per second. */
import { ACK_EVERY_BYTES, DOWNLOAD, ECHO, hello, UPLOAD } from "../wire.ts";
import { Tally } from "./command.ts";
import type { BulkLoad, LoadResult, TunnelLoad } from "./command.ts";
import { openTunnel } from "./tunnel.ts";
import type { OpenTunnel } from "./tunnel.ts";

const SMALL_READ_BYTES = 4 * 1024;
const BULK_READ_BYTES = 1024 * 1024;
const ECHO_TIMEOUT_MS = 10_000;
const MAX_FAILURES = 50;
const PAYLOAD = Buffer.alloc(64, "p");
const ECHO_REQUEST = Buffer.concat([hello(ECHO), PAYLOAD]);

/** Waits until the payload has come back whole. */
export async function roundTrip(tunnel: OpenTunnel): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    let seen = 0;
    const onClose = (): void => finish(new Error("tunnel closed before the echo"));
    const finish = (error: Error | undefined): void => {
      clearTimeout(timer);
      tunnel.socket.off("close", onClose);
      if (error === undefined) {
        resolve();
      } else {
        reject(error);
      }
    };
    const timer = setTimeout(() => finish(new Error("echo timed out")), ECHO_TIMEOUT_MS);
    tunnel.socket.on("close", onClose);
    tunnel.onBytes = (bytes) => {
      seen += bytes.length;
      if (seen === PAYLOAD.length) {
        finish(undefined);
      } else if (seen > PAYLOAD.length) {
        finish(new Error("echo is longer than what was sent"));
      }
    };
    tunnel.socket.write(ECHO_REQUEST);
  });
}

async function closed(tunnel: OpenTunnel): Promise<void> {
  await new Promise<void>((resolve) => {
    tunnel.socket.once("close", () => resolve());
    setTimeout(() => tunnel.socket.destroy(), 1_000).unref();
    tunnel.socket.end();
  });
}

/** Open, one round trip, close: as often as `connections` clients can in the time. */
export async function tunnelLoad(load: TunnelLoad): Promise<LoadResult> {
  const tally = new Tally();
  const startedAt = performance.now();
  const deadline = startedAt + load.seconds * 1000;
  const client = async (): Promise<void> => {
    const buffer = Buffer.allocUnsafe(SMALL_READ_BYTES);
    while (performance.now() < deadline && tally.failed < MAX_FAILURES) {
      const began = performance.now();
      try {
        const tunnel = await openTunnel(load, buffer);
        await roundTrip(tunnel);
        tally.record(performance.now() - began);
        await closed(tunnel);
      } catch (error) {
        tally.fail(String(error));
      }
    }
  };
  await Promise.all(Array.from({ length: load.connections }, client));
  return tally.result((performance.now() - startedAt) / 1000);
}

interface Transfer {
  readonly tunnel: OpenTunnel;
  bytes: number;
}

const CHUNK = Buffer.alloc(256 * 1024, "u");

function startTransfer(load: BulkLoad, tunnel: OpenTunnel, tally: Tally): Transfer {
  const transfer: Transfer = { tunnel, bytes: 0 };
  const { socket } = tunnel;
  socket.on("close", () => {
    if (!socket.writableEnded) {
      tally.fail("tunnel closed during the transfer");
    }
  });
  if (load.direction === "down") {
    tunnel.onBytes = (bytes) => {
      transfer.bytes += bytes.length;
    };
    socket.write(hello(DOWNLOAD));
    return transfer;
  }
  tunnel.onBytes = (bytes) => {
    transfer.bytes += bytes.length * ACK_EVERY_BYTES;
  };
  const fill = (): void => {
    while (!socket.destroyed && !socket.writableEnded && socket.write(CHUNK)) {
      // Until the socket pushes back.
    }
  };
  socket.on("drain", fill);
  socket.write(hello(UPLOAD));
  fill();
  return transfer;
}

async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

/** Bytes per second through tunnels that are already flowing; the ramp is outside the window. */
export async function bulkLoad(load: BulkLoad): Promise<LoadResult> {
  const tally = new Tally();
  const buffer = Buffer.allocUnsafe(BULK_READ_BYTES);
  const transfers: Transfer[] = [];
  for (let i = 0; i < load.connections; i += 1) {
    transfers.push(startTransfer(load, await openTunnel(load, buffer), tally));
  }
  const sum = (): number => transfers.reduce((total, transfer) => total + transfer.bytes, 0);
  await pause(150);
  const before = sum();
  const startedAt = performance.now();
  await pause(load.seconds * 1000);
  const total = sum();
  const seconds = (performance.now() - startedAt) / 1000;
  if (transfers.some((transfer) => transfer.bytes === 0)) {
    tally.fail("a tunnel moved no bytes");
  }
  for (const { tunnel } of transfers) {
    tunnel.socket.removeAllListeners("close");
    tunnel.socket.destroy();
  }
  return { ...tally.result(seconds), count: total - before, total };
}
