/** Pins that several processes keep together. */
import { expect, test } from "vitest";
import { SharedPins } from "../../../../src/plugins/parsers/shared-pins.ts";
import { keyRingOf } from "../../../../src/state/key-ring.ts";
import { MemoryStore } from "../../../../src/state/memory-store.ts";
import { SealedStore } from "../../../../src/state/sealed-store.ts";
import { eventually } from "../../../support/eventually.ts";
import { PluginBench, stateIn } from "../../../support/plugin-bench.ts";

const tool = (description: string) => ({ name: "t", description });

function replicas(): {
  readonly store: MemoryStore;
  readonly one: SharedPins;
  readonly other: SharedPins;
} {
  const store = new MemoryStore({ maxBytes: 1_048_576 });
  const bench = new PluginBench();
  bench.state = stateIn(store, true);
  return { store, one: new SharedPins(bench.deps), other: new SharedPins(bench.deps) };
}

const kept = (store: MemoryStore): string =>
  [...store.entries.values()].map(({ value }) => String(value)).join();

test("two that saw different things first at once: one of them counts for both", async () => {
  const { store, one, other } = replicas();
  expect([one.observe("s", "t", tool("a")), other.observe("s", "t", tool("b"))]).toEqual([
    true,
    true,
  ]);
  await eventually(() => kept(store).includes("true"));
  await Promise.all([one.load("s"), other.load("s")]);
  expect([one.isChanged("s", "t"), other.isChanged("s", "t")]).toEqual([true, true]);
  // The one that counts is again what it was.
  expect([one.observe("s", "t", tool("a")), other.observe("s", "t", tool("b"))]).toEqual([
    true,
    false,
  ]);
});

test("a store that was emptied is told again, without anything new being listed", async () => {
  const { store, one, other } = replicas();
  one.observe("s", "t", tool("a"));
  await eventually(() => kept(store).includes('"t"'));
  await one.load("s");
  store.delete([...store.entries.keys()][0] ?? "");
  await one.load("s");
  await eventually(() => kept(store).includes('"t"'));
  await other.load("s");
  expect(other.observe("s", "t", tool("b"))).toBe(false);
});

test("a tool that is again what it was is told so", async () => {
  const { store, one, other } = replicas();
  one.observe("s", "t", tool("a"));
  one.observe("s", "t", tool("b"));
  await eventually(() => kept(store).includes("true"));
  await other.load("s");
  expect(other.isChanged("s", "t")).toBe(true);
  one.observe("s", "t", tool("a"));
  await eventually(() => kept(store).includes("false"));
  await other.load("s");
  expect(other.isChanged("s", "t")).toBe(false);
});

test("with a key nobody reads the pins where they are kept, and the replicas still agree", async () => {
  const store = new MemoryStore({ maxBytes: 1_048_576 });
  const keys = keyRingOf(Buffer.alloc(32, 1).toString("base64"));
  const bench = new PluginBench();
  bench.state = { ...stateIn(store, true), sealed: new SealedStore(store, () => keys) };
  const [one, other] = [new SharedPins(bench.deps), new SharedPins(bench.deps)];
  one.observe("s", "transfer", { name: "transfer", description: "a" });
  await eventually(() => store.entries.size === 1);
  expect(kept(store)).not.toContain("transfer");
  await other.load("s");
  expect(other.observe("s", "transfer", { name: "transfer", description: "b" })).toBe(false);
});
