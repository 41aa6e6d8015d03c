/** A thread that has not started yet, and what it is told meanwhile. */
import { MessageChannel } from "node:worker_threads";
import { expect, test } from "vitest";
import type { ControlCalls, ThreadCalls } from "../../../src/crew/calls.ts";
import { serveThread } from "../../../src/crew/thread.ts";
import { Channel, type Handlers } from "../../../src/threads/channel.ts";

test("words that come before it has started are no faults", async () => {
  const { port1, port2 } = new MessageChannel();
  serveThread(port1);
  const control = new Channel<ThreadCalls, ControlCalls>(port2, {} as Handlers<ControlCalls>);
  const faults: unknown[] = [];
  const hear = (reason: unknown): void => void faults.push(reason);
  process.prependListener("unhandledRejection", hear);
  control.tell("published", { store: "shared", channel: "jwks", message: "" });
  control.tell("level", "debug");
  control.tell("owns", { host: "127.0.0.1", port: 1 });
  await expect(control.ask("report", false)).rejects.toThrow("not started");
  await new Promise((resolve) => setImmediate(resolve));
  process.off("unhandledRejection", hear);
  port1.close();
  expect(faults).toEqual([]);
});
