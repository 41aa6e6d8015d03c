import { MessageChannel } from "node:worker_threads";
import { afterEach, expect, test } from "vitest";
import { ProxyError } from "../../../src/errors.ts";
import { Channel, type Handlers } from "../../../src/threads/channel.ts";

interface Asked {
  double(n: number): number;
  fail(word: string): void;
  never(nothing: undefined): void;
}
interface Nothing {
  none(nothing: undefined): void;
}

const ports: { close(): void }[] = [];

afterEach(() => {
  for (const port of ports.splice(0)) port.close();
});

function pair(): Channel<Asked, Nothing> {
  const { port1, port2 } = new MessageChannel();
  ports.push(port1, port2);
  const handlers: Handlers<Asked> = {
    double: (n) => n * 2,
    fail: (word) => {
      throw word === "plain" ? new Error("why") : new ProxyError("state.unavailable", "away");
    },
    never: () => new Promise<void>(() => undefined),
  };
  const there = new Channel<Nothing, Asked>(port2, handlers);
  expect(there).toBeDefined();
  return new Channel<Asked, Nothing>(port1, { none: () => undefined });
}

test("questions are answered, each with its own response", async () => {
  const channel = pair();
  const numbers = [1, 2, 3, 4];
  expect(await Promise.all(numbers.map((n) => channel.ask("double", n)))).toEqual([2, 4, 6, 8]);
});

test("a fault crosses with its code and its message", async () => {
  const channel = pair();
  await expect(channel.ask("fail", "coded")).rejects.toMatchObject({
    code: "state.unavailable",
    message: "away",
  });
  await expect(channel.ask("fail", "plain")).rejects.toMatchObject({
    code: "internal.fault",
    message: "why",
  });
});

test("nobody waits longer than the limit, or for a thread that is gone", async () => {
  const channel = pair();
  await expect(channel.ask("never", undefined, 5)).rejects.toThrow("no response within 5 ms");
  const waiting = channel.ask("never", undefined);
  channel.end(new Error("gone"));
  await expect(waiting).rejects.toThrow("gone");
  await expect(channel.ask("double", 1)).rejects.toThrow("gone");
});
