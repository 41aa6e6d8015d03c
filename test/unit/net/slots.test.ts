import { expect, test } from "vitest";
import { Slots } from "../../../src/net/slots.ts";

test("holds what was added and not deleted, and counts it, whichever slots are used again", () => {
  const slots = new Slots<string>();
  const [first] = [slots.add("a"), slots.add("b"), slots.add("c")];
  slots.delete(first);
  expect([slots.size, [...slots]]).toEqual([2, ["b", "c"]]);
  slots.delete(slots.add("d"));
  slots.add("e");
  expect([slots.size, [...slots].sort()]).toEqual([3, ["b", "c", "e"]]);
});

test("shows nobody what was deleted while it was gone through", () => {
  const slots = new Slots<number>();
  const places = [1, 2, 3, 4].map((item) => slots.add(item));
  const seen: number[] = [];
  for (const item of slots) {
    seen.push(item);
    if (item === 1) for (const place of places.slice(1, 3)) slots.delete(place);
  }
  expect(seen).toEqual([1, 4]);
});
