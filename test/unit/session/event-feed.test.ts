import { expect, test } from "vitest";
import { EventFeed } from "../../../src/session/event-feed.ts";
import type { SessionEvent } from "../../../src/session/event.ts";

function event(requestId: string, inference?: unknown): SessionEvent {
  const at = "2026-01-01T00:00:00.000Z";
  const event = { sessionId: "default", at, direction: "outbound", phase: "request" } as const;
  return { ...event, requestId, host: "origin.example", inference };
}

test("several calls of next wait in order, and the end answers those that are left", async () => {
  const feed = new EventFeed();
  const reader = feed[Symbol.asyncIterator]();
  const waiting = [reader.next(), reader.next(), reader.next()];
  feed.record(event("1"));
  feed.record(event("2"));
  feed.end();
  expect((await Promise.all(waiting)).map(({ value }) => value?.requestId)).toEqual([
    "1",
    "2",
    undefined,
  ]);
  expect(await reader.next()).toEqual({ done: true, value: undefined });
});

test("large events are bounded by their bytes, and one that is larger than all room still comes", async () => {
  const feed = new EventFeed();
  const reader = feed[Symbol.asyncIterator]();
  const large = { completion: "x".repeat(9 * 1_048_576) };
  for (const id of ["1", "2", "3"]) feed.record(event(id, large));
  expect([reader.dropped, feed.dropped]).toEqual([2, 2]);
  expect((await reader.next()).value?.requestId).toBe("1");
  feed.record(event("4", { completion: "x".repeat(17 * 1_048_576) }));
  expect((await reader.next()).value?.requestId).toBe("4");
});

test("a reader that has left gets nothing, and what it missed stays counted", async () => {
  const feed = new EventFeed();
  const reader = feed[Symbol.asyncIterator]();
  for (let id = 0; id < 1_025; id += 1) feed.record(event(String(id)));
  await reader.return();
  feed.record(event("late"));
  expect(await reader.next()).toEqual({ done: true, value: undefined });
  expect([reader.dropped, feed.dropped]).toEqual([1, 1]);
});
