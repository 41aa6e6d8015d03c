import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { IdleTimeouts } from "../../../src/net/idle-timeouts.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test("calls once when the limit has passed without a touch, late by at most two sweeps", () => {
  const idleTimeouts = new IdleTimeouts({ intervalMs: 10 });
  const onIdle = vi.fn();
  idleTimeouts.watch(50, onIdle);
  vi.advanceTimersByTime(49);
  expect(onIdle).not.toHaveBeenCalled();
  vi.advanceTimersByTime(21);
  expect(onIdle).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(500);
  expect(onIdle).toHaveBeenCalledTimes(1);
});

test("a touch starts the limit anew", () => {
  const idleTimeouts = new IdleTimeouts({ intervalMs: 10 });
  const onIdle = vi.fn();
  const watch = idleTimeouts.watch(50, onIdle);
  for (let round = 0; round < 5; round += 1) {
    vi.advanceTimersByTime(45);
    watch.touch();
  }
  expect(onIdle).not.toHaveBeenCalled();
});

test("the timer runs only while something is watched", () => {
  const idleTimeouts = new IdleTimeouts({ intervalMs: 10 });
  idleTimeouts.watch(0, () => {});
  expect(vi.getTimerCount()).toBe(0);
  const watches = [idleTimeouts.watch(50, () => {}), idleTimeouts.watch(50, () => {})];
  expect(vi.getTimerCount()).toBe(1);
  for (const watch of watches) {
    watch.stop();
  }
  expect(vi.getTimerCount()).toBe(0);
});

test("close forgets everything", () => {
  const idleTimeouts = new IdleTimeouts({ intervalMs: 10 });
  const onIdle = vi.fn();
  idleTimeouts.watch(20, onIdle);
  idleTimeouts.close();
  vi.advanceTimersByTime(1000);
  expect(onIdle).not.toHaveBeenCalled();
});
