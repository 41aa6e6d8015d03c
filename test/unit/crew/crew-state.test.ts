/** The stores of a process, as its threads use them. */
import { expect, test } from "vitest";
import type { StateParts } from "../../../src/app/state-parts.ts";
import { CrewState } from "../../../src/crew/crew-state.ts";
import { MemoryStore } from "../../../src/state/memory-store.ts";
import { createLogger } from "../../../src/telemetry/log.ts";

test("a store that plugins name is closed when no thread uses it any more, and opened for the next one", async () => {
  let [opened, closed] = [0, 0];
  class Named extends MemoryStore {
    override open(): Promise<void> {
      opened += 1;
      return super.open();
    }

    override close(): Promise<void> {
      closed += 1;
      return super.close();
    }
  }
  const parts = { at: () => new Named({ maxBytes: 1_024 }) } as unknown as StateParts;
  const state = new CrewState(parts, createLogger("silent"));
  const store = "at redis://store.test";
  const use = (thread: number): unknown =>
    state.answer(thread, { store, call: { kind: "get", key: "k" } }, () => undefined);
  const leave = (thread: number): unknown =>
    state.answer(thread, { store, call: { kind: "leave" } }, () => undefined);
  use(0);
  use(1);
  await leave(0);
  expect([opened, closed]).toEqual([1, 0]);
  state.forget(1);
  expect([opened, closed]).toEqual([1, 1]);
  use(0);
  expect([opened, closed]).toEqual([2, 1]);
  await state.close();
  expect([opened, closed]).toEqual([2, 2]);
});
