import { afterEach, expect, test } from "vitest";
import type { ResponseHandler } from "../../../src/http/response-handler.ts";
import { StallWatch } from "../../../src/net/stall-watch.ts";
import { ClientPool } from "../../../src/wire/client-pool.ts";
import { eventually } from "../../support/eventually.ts";
import { MemorySocket } from "../../support/memory-socket.ts";

/** Says of a write that it is done when it is told to, as TLS does a turn late and a full connection not at all. */
class LateSocket extends MemorySocket {
  #done: (() => void) | undefined;

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.written += chunk.toString("latin1");
    this.#done = done;
  }

  confirm(): void {
    this.#done?.();
  }
}

const watch = new StallWatch(1_000);
const limits = {
  maxHeaderBytes: 65_536,
  maxHeaders: 100,
  responseTimeoutMs: 0,
  streamIdleTimeoutMs: 0,
  idleTimeoutMs: 60_000,
  maxIdleTimeoutMs: 60_000,
};

afterEach(() => watch.close());

/** One request on a new pool, whose response comes before its write is confirmed. */
async function answeredEarly(): Promise<{ socket: LateSocket; pool: ClientPool }> {
  const socket = new LateSocket();
  const pool = new ClientPool({
    open: () => Promise.resolve(socket.asSocket),
    limits,
    watch,
  });
  await new Promise<void>((resolve, reject) => {
    const handler: ResponseHandler = {
      onRequestStart: () => undefined,
      onResponseStarted: () => undefined,
      onResponseStart: () => undefined,
      onInformational: () => undefined,
      onUpgrade: () => undefined,
      onResponseData: () => undefined,
      onResponseEnd: () => resolve(),
      onResponseError: (_control, error) => reject(error),
    };
    pool.dispatch({ method: "GET", path: "/", headers: ["Host", "a"], body: null }, handler);
    void eventually(() => socket.written !== "").then(() =>
      socket.give(Buffer.from("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")),
    );
  });
  return { socket, pool };
}

test("a connection is kept whose response comes a turn before its write is confirmed", async () => {
  const { socket, pool } = await answeredEarly();
  expect([pool.count, pool.idle]).toEqual([1, 0]);
  socket.confirm();
  await eventually(() => pool.idle === 1);
  expect(socket.destroyed).toBe(false);
});

test("a connection is closed whose origin answers and does not take the request", async () => {
  const { socket, pool } = await answeredEarly();
  await eventually(() => pool.count === 0);
  expect(socket.destroyed).toBe(true);
});
