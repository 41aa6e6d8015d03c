import { expect, test, vi } from "vitest";
import { type Runtime, RuntimeHolder } from "../../../../src/proxy/flow/runtime.ts";

/** As much of a generation as its holder touches. */
function generation(number: number): Runtime & { close: ReturnType<typeof vi.fn> } {
  const close = vi.fn(() => Promise.resolve());
  return { generation: number, close } as unknown as Runtime & { close: typeof close };
}

test("a generation closes after its last flow, and new flows get the next one", async () => {
  const [first, second] = [generation(1), generation(2)];
  const holder = new RuntimeHolder(first);
  const old = holder.acquire();
  holder.swap(second, 60_000);
  const fresh = holder.acquire();
  expect([old.runtime, fresh.runtime]).toEqual([first, second]);
  expect(holder.flows).toBe(2);
  expect(first.close).not.toHaveBeenCalled();
  old.release();
  old.release();
  expect(first.close).toHaveBeenCalledTimes(1);
  expect(holder.flows).toBe(1);
  fresh.release();
  expect(holder.flows).toBe(0);
  await holder.close(0);
  expect(second.close).toHaveBeenCalledTimes(1);
});

test("a generation with a flow that does not end closes after the drain time", async () => {
  const held = generation(1);
  const holder = new RuntimeHolder(held);
  holder.acquire();
  await holder.close(1);
  expect(held.close).toHaveBeenCalledTimes(1);
});

test("a flow that ends after its generation was closed by force is counted once", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const closing = { ...generation(1), close: () => promise };
  const holder = new RuntimeHolder(closing);
  const late = holder.acquire();
  holder.swap(generation(2), 0);
  await vi.waitFor(() => expect(holder.flows).toBe(0));
  late.release();
  expect(holder.flows).toBe(0);
  resolve();
  await holder.close(0);
});
