/** The bounds of the store of whole texts. */
import { describe, expect, test } from "vitest";
import { type KeptText, TextStore } from "../../../../src/plugins/context-guru/text-store.ts";
import { ManualClock } from "../../../support/plugin-bench.ts";

function storeOf(over: object = {}): {
  readonly store: TextStore;
  readonly clock: ManualClock;
  readonly evicted: () => number;
} {
  const clock = new ManualClock(0);
  let evicted = 0;
  const options = { clock, maxBytes: 8_000, maxTexts: 3, ttlMs: 1_000 };
  const onEvicted = (): void => {
    evicted += 1;
  };
  return {
    store: new TextStore({ ...options, ...over, onEvicted }),
    clock,
    evicted: () => evicted,
  };
}

const text = (bytes: number): KeptText => ({
  whole: "x".repeat(bytes - 256),
  json: undefined,
  kind: "lines",
});

describe("a text", () => {
  test("is of its owner and of nobody else", () => {
    const { store } = storeOf();
    expect(store.put("a", "1", text(500))).toBeDefined();
    expect(store.get("a", "1")?.whole).toHaveLength(244);
    expect(store.get("b", "1")).toBeUndefined();
  });

  test("ends when it was not used for so long", () => {
    const { store, clock } = storeOf();
    store.put("a", "1", text(500));
    store.put("b", "1", text(500));
    clock.advance(900);
    expect(store.get("a", "1")).toBeDefined();
    clock.advance(900);
    expect(store.get("b", "1")).toBeUndefined();
    expect(store.get("a", "1")).toBeDefined();
    clock.advance(1_000);
    expect(store.get("a", "1")).toBeUndefined();
    expect(store.bytes).toBe(0);
  });

  test("of more than a quarter of the store is not taken", () => {
    const { store } = storeOf();
    expect(store.put("a", "1", text(2_001))).toBeUndefined();
    expect(store.put("a", "1", text(2_000))).toBeDefined();
  });
});

describe("what is above a bound goes, the oldest first, and is counted", () => {
  test("texts and bytes of one owner", () => {
    const { store, evicted } = storeOf();
    for (const id of ["1", "2", "3"]) store.put("a", id, text(400));
    store.get("a", "1");
    store.put("a", "4", text(400));
    expect(["1", "2", "3", "4"].map((id) => store.get("a", id) !== undefined)).toEqual([
      true,
      false,
      true,
      true,
    ]);
    store.put("a", "5", text(1_500));
    expect(store.get("a", "5")).toBeDefined();
    expect(store.bytes).toBeLessThanOrEqual(2_000);
    expect(evicted()).toBe(3);
  });

  test("bytes of all: the owner that was quiet longest loses", () => {
    const { store } = storeOf();
    for (const owner of ["a", "b", "c", "d"]) store.put(owner, "1", text(2_000));
    store.get("a", "1");
    store.put("e", "1", text(2_000));
    const left = ["a", "b", "c", "d", "e"].filter((owner) => store.get(owner, "1") !== undefined);
    expect(left).toEqual(["a", "c", "d", "e"]);
    expect(store.bytes).toBe(8_000);
  });

  test("the same text again takes no more room", () => {
    const { store } = storeOf();
    for (let at = 0; at < 5; at += 1) store.put("a", "1", text(500));
    expect(store.bytes).toBe(500);
  });
});
