/** Whether somebody still waits for a message. */
import { expect, test } from "vitest";
import { Cancellation } from "../../../src/pipeline/cancellation.ts";

test("those who listen hear of it once, and not those who have stopped", () => {
  const heard: string[] = [];
  const cancellation = new Cancellation();
  const stopped = (): void => void heard.push("stopped");
  cancellation.addEventListener("abort", () => heard.push("listens"));
  cancellation.addEventListener("abort", stopped);
  cancellation.removeEventListener("abort", stopped);
  cancellation.removeEventListener("abort", stopped);
  expect(cancellation.aborted).toBe(false);
  cancellation.abort();
  cancellation.abort();
  expect(cancellation.aborted).toBe(true);
  expect(heard).toEqual(["listens"]);
});

test.each(["before", "after"])(
  "a signal that was asked for %s is aborted with a reason",
  (when) => {
    const cancellation = new Cancellation();
    const early = when === "before" ? cancellation.signal : undefined;
    expect(early?.aborted ?? false).toBe(false);
    cancellation.abort();
    const { signal } = cancellation;
    expect(early ?? signal).toBe(signal);
    expect(signal.aborted).toBe(true);
    expect(signal.reason).toMatchObject({ message: "the client went away" });
    expect(cancellation.signal).toBe(signal);
  },
);
