import { afterEach, beforeEach, expect, type Mock, test, vi } from "vitest";
import { type Stallable, StallWatch } from "../../../src/net/stall-watch.ts";

let watch: StallWatch;
beforeEach(() => {
  vi.useFakeTimers();
  watch = new StallWatch(10);
});
afterEach(() => {
  watch.close();
  vi.useRealTimers();
});

interface Waiting extends Stallable {
  moved: number;
  readonly onStall: Mock<() => void>;
}

function waiting(limitMs: number): Waiting {
  const item: Waiting = {
    lastSeen: { progress: -1, sinceMs: 0 },
    moved: 0,

    onStall: vi.fn<() => void>(),
    stallLimitMs: () => limitMs,
    progress: () => item.moved,
  };
  return item;
}

test("calls when the limit has passed without progress, late by at most two sweeps", () => {
  const item = waiting(50);
  watch.add(item);
  vi.advanceTimersByTime(49);
  expect(item.onStall).not.toHaveBeenCalled();
  vi.advanceTimersByTime(21);
  expect(item.onStall).toHaveBeenCalledTimes(1);
});

test("progress starts the limit anew, and a limit of 0 is none", () => {
  const [moving, unlimited] = [waiting(50), waiting(0)];
  watch.add(moving);
  watch.add(unlimited);
  for (let round = 0; round < 5; round += 1) {
    vi.advanceTimersByTime(45);
    moving.moved += 1;
  }
  vi.advanceTimersByTime(1);
  expect(moving.onStall).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1_000);
  expect(unlimited.onStall).not.toHaveBeenCalled();
});

test("what is deleted is not watched, and its slot serves another", () => {
  const [gone, next] = [waiting(20), waiting(20)];
  const slot = watch.add(gone);
  watch.delete(slot);
  expect(watch.add(next)).toBe(slot);
  vi.advanceTimersByTime(100);
  expect(gone.onStall).not.toHaveBeenCalled();
  expect(next.onStall).toHaveBeenCalled();
});
