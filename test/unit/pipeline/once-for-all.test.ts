import { expect, test } from "vitest";
import { OnceForAll } from "../../../src/pipeline/once-for-all.ts";
import { OtherThreads } from "../../../src/pipeline/other-threads.ts";
import { MemoryStore } from "../../../src/state/memory-store.ts";
import { callStore, RemoteStore } from "../../../src/state/remote-store.ts";

/** The store of a process, as two of its threads see it. */
function twoThreads(): readonly [RemoteStore, RemoteStore] {
  const store = new MemoryStore({ maxBytes: 1_048_576 });
  const thread = (): RemoteStore => {
    const ends = new Map<string, () => void>();
    const remote = new RemoteStore(async (call) => {
      await Promise.resolve();
      if (call.kind === "subscribe") {
        const { channel } = call;
        ends.set(
          channel,
          store.subscribe(channel, (text) => remote.published(channel, text)),
        );
      }
      if (call.kind === "unsubscribe") ends.get(call.channel)?.();
      return callStore(store, call);
    });
    return remote;
  };
  return [thread(), thread()];
}

test("two that ask at once share what one of them makes, and it is kept for as long as it says", async () => {
  const threads = twoThreads().map((store) => new OnceForAll(store, "test"));
  const [one, other] = threads;
  let made = 0;
  const make = async () => {
    made += 1;
    await Promise.resolve();
    return { text: `text ${made}`, keepMs: 60_000 };
  };
  const asked = await Promise.all(threads.map((each) => each.othersOr("key", 1_000, make)));
  expect(new Set(asked)).toEqual(new Set(["text 1", undefined]));
  expect(await other?.othersOr("key", 1_000, make)).toBe("text 1");
  await one?.forget("key");
  expect(await other?.othersOr("key", 1_000, make)).toBeUndefined();
  expect(made).toBe(2);
});

test("what is not kept is for those who wait, and for nobody who comes later", async () => {
  const [one, other] = twoThreads().map((store) => new OnceForAll(store, "test"));
  let made = 0;
  const gate = Promise.withResolvers<void>();
  const make = async () => {
    made += 1;
    await gate.promise;
    return { text: "text", keepMs: 0 };
  };
  const first = one?.othersOr("key", 10_000, make);
  const second = other?.othersOr("key", 10_000, make);
  for (let turn = 0; turn < 50; turn += 1) await Promise.resolve();
  gate.resolve();
  expect(await Promise.all([first, second])).toEqual([undefined, "text"]);
  await one?.othersOr("key", 10_000, make);
  expect(made).toBe(2);
});

test("a failure is that of whoever made it, and the other makes its own", async () => {
  const [one, other] = twoThreads().map((store) => new OnceForAll(store, "test"));
  const gate = Promise.withResolvers<never>();
  const failing = one?.othersOr("key", 10_000, () => gate.promise);
  const made: string[] = [];
  const waiting = other?.othersOr("key", 10_000, async () => {
    made.push("mine");
    return Promise.resolve(undefined);
  });
  for (let turn = 0; turn < 50; turn += 1) await Promise.resolve();
  gate.reject(new Error("away"));
  await expect(failing).rejects.toThrow("away");
  expect(await waiting).toBeUndefined();
  expect(made).toEqual(["mine"]);
});

test("on a channel of threads nobody hears itself", async () => {
  const [first, second] = twoThreads();
  const heard: string[] = [];
  const one = new OtherThreads(first, "channel", (text) => heard.push(`one: ${text}`));
  const other = new OtherThreads(second, "channel", (text) => heard.push(`other: ${text}`));
  await one.say("a b");
  await other.say("c");
  expect(heard).toEqual(["other: a b", "one: c"]);
  other.close();
  await one.say("d");
  expect(heard).toHaveLength(2);
});
