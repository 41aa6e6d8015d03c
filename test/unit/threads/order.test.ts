import { expect, test } from "vitest";
import { Order } from "../../../src/threads/order.ts";

test("a question waits for what was told before it, of every thread, and for nothing that was told later", async () => {
  const control = new Order(2);
  const [first, second] = [new Order(2, control.memory), new Order(2, control.memory)];
  expect(control.after(second.now)).toBeUndefined();
  first.told(0);
  first.told(0);
  const asked = second.now;
  first.told(0);
  let isAnswered = false;
  const waiting = control.after(asked)?.then(() => {
    isAnswered = true;
  });
  control.heard(0);
  await Promise.resolve();
  expect(isAnswered).toBe(false);
  control.heard(0);
  await waiting;
  expect(isAnswered).toBe(true);
  expect(first.backlog(0)).toBe(1);
  expect(second.backlog(1)).toBe(0);
});

test("nobody waits for a thread that is gone, and the next one in its place goes on counting", async () => {
  const control = new Order(2);
  const gone = new Order(2, control.memory);
  gone.told(1);
  const asked = control.now;
  const waiting = control.after(asked);
  expect(waiting).toBeDefined();
  control.forget(1);
  await waiting;
  const next = new Order(2, control.memory);
  next.told(1);
  expect(control.after(asked)).toBeUndefined();
  expect(control.after(next.now)).toBeDefined();
  control.heard(1);
  expect(control.after(next.now)).toBeUndefined();
});
