/** Orders of replicas, in whatever sequence they are heard. */
import { describe, expect, test } from "vitest";
import { maxKills } from "../../../../src/app/kills/kill-file.ts";
import { KillSet, type Told, toldOf } from "../../../../src/app/kills/kill-set.ts";
import type { Kill } from "../../../../src/pipeline/kill-switch.ts";

const one: Kill = { scope: "session", value: "one", at: 1 };
const name = "session one";

function released(set: KillSet, at = 1): Told {
  const told = set.release(name, at);
  if (told === undefined) throw new Error("nothing was stopped");
  return told;
}

const named = (set: KillSet): readonly string[] => set.kills.map(({ value }) => value);

describe("two replicas", () => {
  test("a release undoes what it had seen, whatever the clocks say", () => {
    const [a, b] = [new KillSet(), new KillSet()];
    b.take(a.stop({ ...one, at: 9_999_999_999_999 }));
    a.take(released(b, 1));
    expect([named(a), named(b)]).toEqual([[], []]);
  });

  test("an order that is given while another replica releases stands, in both sequences", () => {
    for (const isFirst of [true, false]) {
      const [a, b, c] = [new KillSet(), new KillSet(), new KillSet()];
      const first = a.stop(one);
      b.take(first);
      c.take(first);
      const undone = released(b);
      const again = a.stop({ ...one, reason: "again" });
      for (const told of isFirst ? [undone, again] : [again, undone]) c.take(told);
      a.take(undone);
      b.take(again);
      expect([named(a), named(b), named(c)]).toEqual([["one"], ["one"], ["one"]]);
    }
  });

  test("an order that is heard after its release stops nothing", () => {
    const [a, b] = [new KillSet(), new KillSet()];
    const first = a.stop(one);
    const undone = released(a);
    b.take(undone);
    expect(b.take(first)).toBe(false);
    expect(named(b)).toEqual([]);
  });

  test("more than can be kept stops all", () => {
    const set = new KillSet();
    for (let at = 0; at <= maxKills; at += 1) {
      const value = `s-${at}`;
      set.take({ kill: { ...one, value }, ids: [value], isReleased: false });
    }
    expect(set.kills.at(-1)).toMatchObject({ scope: "all" });
    expect(set.size).toBe(maxKills + 1);
  });
});

test("a thousand orders for one thing are one, and one release undoes them", () => {
  const [a, b] = [new KillSet(), new KillSet()];
  for (let at = 0; at < 1_000; at += 1) b.take(a.stop(one));
  const undone = released(b);
  a.take(undone);
  expect([named(a), named(b), undone.ids.length <= 16]).toEqual([[], [], true]);
});

test("what a replica of an older version says has no ids", () => {
  const set = new KillSet();
  const say = (isReleased: boolean): Told | undefined =>
    toldOf(JSON.stringify({ kill: one, isReleased }), set.ids);
  const order = say(false);
  expect(order && set.take(order)).toBe(true);
  const undone = say(true);
  expect(undone && set.take(undone)).toBe(true);
  expect(toldOf("{}", set.ids)).toBeUndefined();
});
