/** A secret that is renewed before it ends: one fetch for all, the old value while it lasts, a refusal after that. */
import { expect, test } from "vitest";
import type { ProxyError } from "../../../src/errors.ts";
import { OnceForAll } from "../../../src/pipeline/once-for-all.ts";
import { Secret } from "../../../src/secret.ts";
import { RefreshingSecret } from "../../../src/secrets/refreshing-secret.ts";
import { type Fetched, unavailable } from "../../../src/secrets/secret-source.ts";
import { MemoryStore } from "../../../src/state/memory-store.ts";
import { ManualTimers } from "../../support/manual-timers.ts";
import { ManualClock } from "../../support/plugin-bench.ts";

const minute = 60_000;

/** A source whose provider does what the test says, call by call. */
function bench(others?: OnceForAll) {
  const clock = new ManualClock(1_000_000);
  const timers = new ManualTimers(clock);
  const calls: string[] = [];
  const told: string[] = [];
  const provider = { next: (): Promise<Fetched> | Fetched => value("first") };
  const value = (text: string, lifeMs = 10 * minute): Fetched => ({
    value: new Secret(text),
    expiresAt: clock.now() + lifeMs,
  });
  const source = new RefreshingSecret<Secret, string>({
    name: "the source",
    fetcher: {
      fetch: async (means) => {
        calls.push(means);
        return provider.next();
      },
    },
    clock,
    watch: {
      fetched: () => void told.push("fetched"),
      failed: (_name, problem) => void told.push(problem),
      closed: () => void told.push("closed"),
    },
    maxWaitMs: 5_000,
    timeoutMs: 10_000,
    others: others && { shared: others, key: "k" },
    codec: { write: (secret) => secret.reveal(), read: (text) => new Secret(text) },
    later: timers.later,
    random: () => 0,
  });
  const withdraw = source.lend("one");
  /** The value, or why there is none. */
  const ask = async (): Promise<string> => {
    try {
      return (await source.current()).value.reveal();
    } catch (error) {
      const { message, code, cause } = error as ProxyError;
      expect([message, code]).toEqual(["no value from the source", "secret.unavailable"]);
      throw cause;
    }
  };
  return { source, clock, timers, calls, told, provider, value, ask, withdraw };
}

const fails = (problem: string) => (): never => {
  throw unavailable(problem);
};

test("a hundred who ask at once wait for one fetch", async () => {
  const { calls, ask } = bench();
  const texts = await Promise.all(Array.from({ length: 100 }, ask));
  expect(new Set(texts)).toEqual(new Set(["first"]));
  expect(calls).toHaveLength(1);
});

test("it is renewed before its end, and nobody waits for that", async () => {
  const { source, timers, calls, provider, value, ask } = bench();
  await ask();
  provider.next = () => value("second");
  await timers.advance(7 * minute - 1);
  expect(calls).toHaveLength(1);
  await timers.advance(1);
  expect(calls).toHaveLength(2);
  expect(source.current()).toMatchObject({ expiresAt: expect.any(Number) as number });
  expect(await ask()).toBe("second");
});

test("while the provider fails the last value serves until its own end, and then nothing does", async () => {
  const { timers, calls, told, provider, value, ask } = bench();
  await ask();
  provider.next = fails("it is down");
  await timers.advance(10 * minute - 1);
  expect(await ask()).toBe("first");
  expect(calls.length).toBeGreaterThan(3);
  expect(calls.length).toBeLessThan(15);
  await timers.advance(1);
  await expect(ask()).rejects.toThrow("it is down");
  provider.next = () => value("second");
  await timers.advance(minute);
  expect(await ask()).toBe("second");
  expect(told.at(-1)).toBe("fetched");
});

test("without a value, a provider that has just failed is not asked by every request", async () => {
  const { clock, calls, provider, value, ask } = bench();
  provider.next = fails("it is down");
  await expect(ask()).rejects.toThrow("it is down");
  await Promise.all(Array.from({ length: 100 }, () => expect(ask()).rejects.toThrow("it is down")));
  expect(calls).toHaveLength(1);
  provider.next = () => value("first");
  clock.advance(1_000);
  expect(await ask()).toBe("first");
});

test("nobody waits longer than max_wait, nor does a fetch take longer than timeout", async () => {
  const { source, timers, told, provider, ask } = bench();
  provider.next = () => new Promise<Fetched>(() => undefined);
  const waiting = expect(ask()).rejects.toThrow("gave nothing within 5000 ms (max_wait)");
  await timers.advance(5_000);
  await waiting;
  expect(source.notReady()).toContain("the source pending");
  await timers.advance(5_000);
  expect(told).toEqual(["the provider took longer than 10000 ms (timeout)"]);
});

test("a value that was refused is asked for anew, once for a hundred, and seldom", async () => {
  const { source, clock, calls, provider, value, ask } = bench();
  await ask();
  const first = (await source.current()).value;
  provider.next = () => value("second");
  const refused = (): Promise<boolean[]> =>
    Promise.all(Array.from({ length: 100 }, async () => source.another(first)));
  expect(new Set(await refused())).toEqual(new Set([true]));
  expect(calls).toHaveLength(2);
  const second = (await source.current()).value;
  expect(await source.another(second)).toBe(false);
  expect(calls).toHaveLength(2);
  clock.advance(10_000);
  expect(await source.another(second)).toBe(false);
  expect(calls).toHaveLength(3);
  expect(await ask()).toBe("second");
});

test("a value that has ended already is none", async () => {
  const { provider, value, ask } = bench();
  provider.next = () => value("old", 0);
  await expect(ask()).rejects.toThrow("has expired by this machine's clock");
});

test("a fault that is not ours says nothing of what it read", async () => {
  const { provider, ask } = bench();
  provider.next = () => JSON.parse("hunter2") as Fetched;
  await expect(ask()).rejects.toThrow(/it failed \(SyntaxError\)$/);
});

test("a fetch that a reload cut off is made again with the means of the new generation", async () => {
  const { source, calls, provider, value, ask, withdraw } = bench();
  provider.next = () => {
    source.lend("two");
    withdraw();
    provider.next = () => value("second");
    throw unavailable("its connections were closed");
  };
  expect(await ask()).toBe("second");
  expect(calls).toEqual(["one", "two"]);
});

test("a closed source asks nobody and has no timers", async () => {
  const { source, timers, calls, told, ask } = bench();
  await ask();
  source.close();
  await timers.advance(60 * minute);
  expect(calls).toHaveLength(1);
  expect(told.at(-1)).toBe("closed");
});

test("a source that is closed while another thread fetches tells of nothing any more", async () => {
  const store = new MemoryStore({ maxBytes: 65_536 });
  const [one, other] = [0, 1].map(() => bench(new OnceForAll(store, "secrets")));
  const fetched = Promise.withResolvers<Fetched>();
  if (one !== undefined) one.provider.next = () => fetched.promise;
  one?.source.begin();
  other?.source.begin();
  await other?.timers.advance(1);
  other?.source.close();
  fetched.resolve({ value: new Secret("late"), expiresAt: 10_000_000 });
  await other?.timers.advance(60 * minute);
  expect([one?.told, other?.told, other?.calls]).toEqual([["fetched"], ["closed"], []]);
});

test("threads fetch once between them, and share a failure too", async () => {
  const store = new MemoryStore({ maxBytes: 65_536 });
  const [one, other] = [0, 1].map(() => bench(new OnceForAll(store, "secrets")));
  if (one === undefined || other === undefined) throw new Error("two are made");
  one.provider.next = fails("it is down");
  other.provider.next = fails("it is down");
  const both = [one, other].map(({ ask }) => expect(ask()).rejects.toThrow("it is down"));
  await Promise.all(both);
  expect([...one.calls, ...other.calls]).toHaveLength(1);
  one.provider.next = () => one.value("first");
  for (const each of [one, other]) {
    each.clock.advance(1_000);
    expect(await each.ask()).toBe("first");
  }
  expect([...one.calls, ...other.calls]).toHaveLength(2);
});
