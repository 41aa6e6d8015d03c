import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Ending, Member } from "../../../src/crew/member.ts";
import type { Handlers } from "../../../src/threads/channel.ts";
import type { ControlCalls } from "../../../src/crew/calls.ts";

/** A thread that responds to each question, or to none. */
const { FakeWorker } = vi.hoisted(() => {
  class FakeWorker {
    static last: FakeWorker | undefined;
    readonly threadId = 1;
    readonly #listeners = new Map<string, (value: unknown) => void>();
    isStuck = false;

    constructor() {
      FakeWorker.last = this;
    }

    on(event: string, listener: (value: unknown) => void): void {
      this.#listeners.set(event, listener);
    }

    postMessage({ id }: { readonly id: number }): void {
      if (!this.isStuck) this.#listeners.get("message")?.({ kind: "result", id });
    }

    terminate(): Promise<void> {
      this.#listeners.get("exit")?.(1);
      return Promise.resolve();
    }
  }
  return { FakeWorker };
});
vi.mock("node:worker_threads", () => ({ Worker: FakeWorker }));

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("a thread that has not responded for 30 s is ended, and whoever waits for it is told", async () => {
  const endings: Ending[] = [];
  const member = new Member(0, {} as Handlers<ControlCalls>, (_, ending) => endings.push(ending));
  await vi.advanceTimersByTimeAsync(120_000);
  const worker = FakeWorker.last;
  if (worker === undefined) throw new Error("no thread was started");
  worker.isStuck = true;
  const prepared = member.prepare({
    path: "",
    bytes: Buffer.alloc(0),
    lenient: false,
    generation: 2,
  });
  const refused = expect(prepared).rejects.toThrow("thread 0 has ended");
  await vi.advanceTimersByTimeAsync(30_000);
  expect(member.hasEnded).toBe(false);
  await vi.advanceTimersByTimeAsync(5_000);
  expect(member.hasEnded).toBe(true);
  expect(endings).toMatchObject([{ error: { message: "it has not responded for 30 s" } }]);
  await refused;
  expect(vi.getTimerCount()).toBe(0);
});
