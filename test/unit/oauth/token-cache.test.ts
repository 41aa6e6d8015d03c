import { describe, expect, test } from "vitest";
import type { TokenResponse } from "../../../src/oauth/token-response.ts";
import { TokenCache, tokenCacheKey } from "../../../src/oauth/token-cache.ts";
import { OnceForAll } from "../../../src/pipeline/once-for-all.ts";
import { Secret } from "../../../src/secret.ts";
import { MemoryStore } from "../../../src/state/memory-store.ts";
import { ManualClock } from "../../support/plugin-bench.ts";

const signal = new AbortController().signal;

function bench(options: { maxEntries?: number; maxRejections?: number } = {}) {
  const clock = new ManualClock(1_000_000);
  const cache = new TokenCache({ clock, ...options });
  let calls = 0;
  const issue = (expiresInSeconds: number | undefined): Promise<TokenResponse> => {
    calls += 1;
    return Promise.resolve({
      kind: "issued",
      token: new Secret(`token-${calls}`),
      ...(expiresInSeconds === undefined
        ? {}
        : { expiresAt: clock.now() + expiresInSeconds * 1000 }),
    });
  };
  return { clock, cache, issue, calls: () => calls };
}

describe("a lifetime", () => {
  test.each([
    [30, false],
    [1, false],
    [undefined, false],
    [31, true],
  ])("E4 of %s seconds is remembered: %s", async (seconds, isKept) => {
    const { cache, issue } = bench();
    await cache.obtain({ key: "k", load: () => issue(seconds) }, signal);
    expect(cache.get("k") !== undefined).toBe(isKept);
  });

  test("TX-02 ends 30 seconds before the token does", async () => {
    const { cache, clock, issue } = bench();
    await cache.obtain({ key: "k", load: () => issue(100) }, signal);
    clock.advance(69_999);
    expect(cache.get("k")?.token.reveal()).toBe("token-1");
    clock.advance(1);
    expect(cache.get("k")).toBeUndefined();
  });

  test("ends as soon where the clock is set back meanwhile", async () => {
    const { cache, clock, issue } = bench();
    await cache.obtain({ key: "k", load: () => issue(100) }, signal);
    clock.advance(-3_600_000);
    expect(cache.get("k")).toBeDefined();
    clock.advance(70_000);
    expect(cache.get("k")).toBeUndefined();
  });

  test("T2 is never longer than that of the subject token", async () => {
    const { cache, clock, issue } = bench();
    const subjectExpiresAt = clock.now() / 1000 + 10;
    await cache.obtain({ key: "k", subjectExpiresAt, load: () => issue(3_600) }, signal);
    clock.advance(9_999);
    expect(cache.get("k")).toBeDefined();
    clock.advance(1);
    expect(cache.get("k")).toBeUndefined();
  });
});

describe("a key", () => {
  test("E5 keeps apart what only touches", () => {
    expect(tokenCacheKey(["ab", "c"])).not.toBe(tokenCacheKey(["a", "bc"]));
    expect(tokenCacheKey(["a", undefined])).not.toBe(tokenCacheKey(["a", ""]));
    expect(tokenCacheKey(["1:a;", "b"])).not.toBe(tokenCacheKey(["", "1:a;b"]));
  });

  test("TX-01 of another subject has another token", async () => {
    const { cache, issue, calls } = bench();
    for (const user of ["alice", "bob"]) {
      const key = tokenCacheKey([user, "api"]);
      await cache.obtain({ key, load: () => issue(300) }, signal);
    }
    expect(calls()).toBe(2);
  });
});

test("E6 a full cache forgets what has ended, then the oldest, down to three quarters", async () => {
  const { cache, issue } = bench({ maxEntries: 100 });
  for (let at = 0; at <= 100; at += 1) {
    await cache.obtain({ key: `k${at}`, load: () => issue(300) }, signal);
  }
  expect(cache.size).toBe(76);
  expect(cache.get("k0")).toBeUndefined();
  expect(cache.get("k100")).toBeDefined();
});

describe("one call at a time", () => {
  test("Z19 TX-05 a thousand callers share it", async () => {
    const { cache, issue, calls } = bench();
    const load = () => issue(300);
    const all = await Promise.all(
      Array.from({ length: 1_000 }, () => cache.obtain({ key: "k", load }, signal)),
    );
    expect(calls()).toBe(1);
    expect(new Set(all.map((one) => (one.kind === "token" ? one.token.reveal() : "")))).toEqual(
      new Set(["token-1"]),
    );
  });

  test("a failure reaches those who waited and nobody after them", async () => {
    const { cache, issue } = bench();
    const down = (): Promise<TokenResponse> =>
      Promise.resolve({ kind: "unavailable", reason: "down" });
    const [first, second] = await Promise.all([
      cache.obtain({ key: "k", load: down }, signal),
      cache.obtain({ key: "k", load: () => issue(300) }, signal),
    ]);
    expect([first, second].every((one) => one.kind === "refused")).toBe(true);
    expect(await cache.obtain({ key: "k", load: () => issue(300) }, signal)).toHaveProperty(
      "token",
    );
  });

  test("a caller that goes away does not end it for the others", async () => {
    const { cache, issue } = bench();
    const gate = Promise.withResolvers<void>();
    let ended = false;
    const load = async (flight: AbortSignal): Promise<TokenResponse> => {
      await gate.promise;
      ended = flight.aborted;
      return issue(300);
    };
    const leaver = new AbortController();
    const left = cache.obtain({ key: "k", load }, leaver.signal);
    const stayed = cache.obtain({ key: "k", load }, signal);
    leaver.abort();
    expect(await left).toMatchObject({ refused: { reason: "cancelled" } });
    gate.resolve();
    expect(await stayed).toHaveProperty("token");
    expect(ended).toBe(false);
  });

  test("it ends when the last caller has gone, and the next caller starts a new one", async () => {
    const { cache, issue } = bench();
    const leaver = new AbortController();
    let flight: AbortSignal | undefined;
    const left = cache.obtain(
      {
        key: "k",
        load: (own) => {
          flight = own;
          return new Promise(() => undefined);
        },
      },
      leaver.signal,
    );
    leaver.abort();
    await left;
    expect(flight?.aborted).toBe(true);
    expect(await cache.obtain({ key: "k", load: () => issue(300) }, signal)).toHaveProperty(
      "token",
    );
  });

  test("a fault of the loader is a fault for the caller, and is not remembered", async () => {
    const { cache, issue } = bench();
    const load = () => Promise.reject(new TypeError("bug"));
    await expect(cache.obtain({ key: "k", load }, signal)).rejects.toThrow("bug");
    expect(await cache.obtain({ key: "k", load: () => issue(300) }, signal)).toHaveProperty(
      "token",
    );
  });
});

describe("a refusal of the endpoint", () => {
  const refuse = (): Promise<TokenResponse> =>
    Promise.resolve({ kind: "rejected", status: 400, error: "invalid_target" });

  test("TX-04 TX-08 is repeated for five seconds without another call", async () => {
    const { cache, clock, issue, calls } = bench();
    await cache.obtain({ key: "k", load: refuse }, signal);
    const again = await cache.obtain({ key: "k", load: () => issue(300) }, signal);
    expect(again).toMatchObject({ refused: { error: "invalid_target" }, source: "cache" });
    expect(calls()).toBe(0);
    clock.advance(5_000);
    expect(await cache.obtain({ key: "k", load: () => issue(300) }, signal)).toHaveProperty(
      "token",
    );
  });

  test("ends with the credential that it was given to", async () => {
    const { cache, issue } = bench();
    const [old, fresh] = [new Secret("old"), new Secret("new")];
    await cache.obtain({ key: "k", proof: old, load: refuse }, signal);
    const again = await cache.obtain({ key: "k", proof: old, load: () => issue(300) }, signal);
    expect(again).toHaveProperty("source", "cache");
    const renewed = await cache.obtain({ key: "k", proof: fresh, load: () => issue(300) }, signal);
    expect(renewed).toHaveProperty("token");
  });

  test("takes a bounded place, whoever invents tokens", async () => {
    const { cache, issue, calls } = bench({ maxRejections: 10 });
    for (let at = 0; at < 50; at += 1) await cache.obtain({ key: `k${at}`, load: refuse }, signal);
    await cache.obtain({ key: "k0", load: () => issue(300) }, signal);
    expect(calls()).toBe(1);
  });
});

describe("a refusal of two threads", () => {
  function twoThreads() {
    const clock = new ManualClock(1_000_000);
    const others = new OnceForAll(new MemoryStore({ maxBytes: 1_048_576, clock }), "test");
    let calls = 0;
    const load = async (): Promise<TokenResponse> => {
      calls += 1;
      await Promise.resolve();
      return { kind: "rejected", status: 400, error: "invalid_target" };
    };
    const thread = () => new TokenCache({ clock, others });
    return { clock, load, one: thread(), other: thread(), calls: () => calls };
  }

  test("is asked for once, and ends for both of them when it ends for the first", async () => {
    const { clock, load, one, other, calls } = twoThreads();
    expect(await one.obtain({ key: "k", load }, signal)).toMatchObject({ source: "endpoint" });
    clock.advance(4_000);
    expect(await other.obtain({ key: "k", load }, signal)).toMatchObject({
      refused: { error: "invalid_target" },
      source: "cache",
    });
    expect(calls()).toBe(1);
    clock.advance(1_001);
    await Promise.all([one, other].map((cache) => cache.obtain({ key: "k", load }, signal)));
    expect(calls()).toBe(2);
  });

  test("ends for the thread that has another credential", async () => {
    const { load, one, calls } = twoThreads();
    await one.obtain({ key: "k", proof: { old: true }, load }, signal);
    await one.obtain({ key: "k", proof: { old: false }, load }, signal);
    expect(calls()).toBe(2);
  });
});
