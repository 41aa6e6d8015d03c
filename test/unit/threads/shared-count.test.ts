import { expect, test } from "vitest";
import { SharedCounts } from "../../../src/threads/shared-count.ts";

test("what one thread takes, the other cannot", () => {
  const counts = new SharedCounts(2);
  const other = new SharedCounts(2, counts.memory);
  const [here, there] = [counts.of("tunnels", 0), other.of("tunnels", 1)];
  expect([here.take(3), there.take(3), there.take(3), here.take(3)]).toEqual([
    true,
    true,
    true,
    false,
  ]);
  expect(here.taken).toBe(3);
  there.leave();
  expect(here.take(3)).toBe(true);
});

test("counts do not meet each other", () => {
  const counts = new SharedCounts(2);
  counts.of("tunnels", 1).take(10, 4);
  counts.of("buffered bytes", 0).book(5_000_000_000);
  expect(counts.of("forward connections", 0).taken).toBe(0);
  expect(counts.of("buffered bytes", 1).taken).toBe(5_000_000_000);
});

test("what a thread had is given back when it is gone, and nothing else", () => {
  const counts = new SharedCounts(2);
  const [first, second] = [counts.of("tunnels", 0), counts.of("tunnels", 1)];
  first.take(10, 3);
  second.take(10, 4);
  counts.forget(1);
  expect(first.taken).toBe(3);
  // The next thread in its place begins with nothing, and cannot give back what it never had.
  second.leave();
  expect(first.taken).toBe(3);
});
