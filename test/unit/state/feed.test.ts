/** Feeds: whoever follows hears everything, in spite of what the store does. */
import { expect, test } from "vitest";
import { Feed, type FeedOptions } from "../../../src/state/feed.ts";
import { MemoryStore } from "../../../src/state/memory-store.ts";
import { type Addition, stateUnavailable } from "../../../src/state/store.ts";
import { eventually } from "../../support/eventually.ts";
import { owner } from "../../support/owner.ts";

const own = owner();

/** A store that can be away, and lose what is published. */
class Unsteady extends MemoryStore {
  isAway = false;
  isDeaf = false;

  constructor() {
    super({ maxBytes: 10_000_000 });
  }

  override add(additions: readonly Addition[]) {
    if (this.isAway) throw stateUnavailable("test");
    return super.add(additions);
  }

  override publish(channel: string, message: string): void {
    if (!this.isDeaf) super.publish(channel, message);
  }
}

async function feed(store: MemoryStore, over: Partial<FeedOptions> = {}): Promise<Feed> {
  const options = { store, name: "test", keptMs: 60_000, isShared: true, ...over };
  return own(Promise.resolve(new Feed(options)));
}

test("what was told before is heard, and what is told later at once; nobody hears himself", async () => {
  const store = new Unsteady();
  const [one, other] = [await feed(store), await feed(store)];
  await one.tell("early");
  const heard: string[] = [];
  const end = await other.follow((texts) => void heard.push(...texts));
  expect([heard, other.problem]).toEqual([["early"], undefined]);
  await one.tell("late");
  expect(heard).toEqual(["early", "late"]);
  await other.tell("own");
  end();
  await one.tell("after the end");
  expect(heard).toEqual(["early", "late"]);
});

test("who listens and does not follow hears what is new, once somebody follows", async () => {
  const store = new Unsteady();
  const [one, other] = [await feed(store), await feed(store)];
  await one.tell("early");
  const heard: string[] = [];
  other.listen((texts) => void heard.push(...texts));
  await other.follow(() => undefined);
  await one.tell("late");
  expect(heard).toEqual(["late"]);
});

test("what was not published here is found", async () => {
  const store = new Unsteady();
  const [one, other] = [await feed(store), await feed(store)];
  const heard: string[] = [];
  await other.follow((texts) => void heard.push(...texts));
  store.isDeaf = true;
  await one.tell("a");
  await one.tell("b");
  await eventually(() => heard.length === 2);
  expect(heard).toEqual(["a", "b"]);
});

test("what could not be told is told when the store is back", async () => {
  const store = new Unsteady();
  const owed: (string | undefined)[] = [];
  const one = await feed(store, { isShared: false, onOwed: (problem) => void owed.push(problem) });
  const other = await feed(store);
  const heard: string[] = [];
  await other.follow((texts) => void heard.push(...texts));
  store.isAway = true;
  expect(await one.tell("a")).toBe(false);
  expect(await one.tell("b")).toBe(false);
  await eventually(() => other.problem !== undefined);
  store.isAway = false;
  await eventually(() => heard.length === 2 && other.problem === undefined);
  expect([heard, owed]).toEqual([
    ["a", "b"],
    [expect.stringContaining("test"), undefined],
  ]);
});

test("a store that is away when somebody begins to follow is read once it is back", async () => {
  const store = new Unsteady();
  const one = await feed(store);
  await one.tell("early");
  store.isAway = true;
  const alone = await feed(store, { isShared: false });
  const heard: string[] = [];
  await alone.follow((texts) => void heard.push(...texts));
  expect([heard, alone.problem]).toEqual([[], expect.any(String)]);
  store.isAway = false;
  await eventually(() => heard.length === 1 && alone.problem === undefined);
});

test("a number whose text comes late, and one whose text never comes", async () => {
  const store = new Unsteady();
  const [one, other] = [await feed(store), await feed(store)];
  const heard: string[] = [];
  await other.follow((texts) => void heard.push(...texts));
  store.add([{ key: "feed:test:last", by: 2 }]);
  await one.tell("third");
  store.set("feed:test:1", "first");
  await eventually(() => heard.length === 2);
  expect(heard).toEqual(["third", "first"]);
});

test("threads of one process hear at once what the store is away for, and hear it once", async () => {
  const [store, threads] = [new Unsteady(), new Unsteady()];
  const [one, other] = [await feed(store, { threads }), await feed(store, { threads })];
  const [heard, own] = [new Array<string>(), new Array<string>()];
  await one.follow((texts) => void own.push(...texts));
  await other.follow((texts) => void heard.push(...texts));
  store.isAway = true;
  expect(await one.tell("first")).toBe(false);
  expect(heard).toEqual(["first"]);
  store.isAway = false;
  await eventually(() => store.get("feed:test:1") === "first");
  expect(await one.tell("second")).toBe(true);
  await eventually(() => heard.includes("second"));
  expect([heard, own]).toEqual([["first", "second"], []]);
});

test("whoever begins to follow while another one's reading ends hears what was told before", async () => {
  const store = new MemoryStore({ maxBytes: 10_000 });
  const teller = await feed(store, { isShared: false });
  await teller.tell("early");
  for (let turns = 0; turns < 40; turns += 1) {
    const one = await feed(store, { isShared: false });
    const heard: string[] = [];
    const first = one.follow(() => undefined);
    for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
    await one.follow((texts) => void heard.push(...texts));
    await first;
    expect(heard, `after ${turns} turns`).toEqual(["early"]);
  }
});
