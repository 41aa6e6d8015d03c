/** What every state store does alike: in memory, in a file, in Redis, and sealed. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FileStore } from "../../../src/state/file-store.ts";
import { KeyRing } from "../../../src/state/key-ring.ts";
import { MemoryStore } from "../../../src/state/memory-store.ts";
import { RedisStore } from "../../../src/state/redis-store.ts";
import { SealedStore } from "../../../src/state/sealed-store.ts";
import type { OwnedStore, StateStore } from "../../../src/state/store.ts";
import { eventually } from "../../support/eventually.ts";
import { hasRedis, RedisServer } from "../../support/redis.ts";
import { redisPlace } from "../../support/redis-place.ts";

const maxBytes = 1_048_576;
const directory = mkdtempSync(join(tmpdir(), "authbridge-state-"));
let server: RedisServer | undefined;
let files = 0;

beforeAll(async () => {
  if (hasRedis) server = await RedisServer.start();
});

afterAll(async () => {
  await server?.close();
  rmSync(directory, { recursive: true, force: true });
});

const timeoutMs = 10_000;
const kinds: Readonly<Record<string, () => OwnedStore>> = {
  memory: () => new MemoryStore({ maxBytes }),
  file: () => new FileStore({ path: join(directory, `state-${files++}`), maxBytes, timeoutMs }),
  redis: () =>
    new RedisStore({ place: redisPlace(server?.url ?? ""), prefix: `t${files++}:`, timeoutMs }),
};

describe.each(Object.keys(kinds))("a state store: %s", (kind) => {
  const it = test.skipIf(kind === "redis" && !hasRedis);

  async function opened(): Promise<OwnedStore> {
    const store = kinds[kind]?.();
    if (store === undefined) throw new Error(kind);
    await store.open();
    return store;
  }

  it("keeps values until their time is over", async () => {
    const store = await opened();
    expect(await store.get("a")).toBeUndefined();
    await store.set("a", "one");
    await store.set("b", "short", 1);
    expect(await store.get("a")).toBe("one");
    await eventually(async () => (await store.get("b")) === undefined);
    await store.delete("a");
    expect(await store.get("a")).toBeUndefined();
    await store.close();
  });

  it("adds within a bound, all or nothing", async () => {
    const store = await opened();
    const one = { key: "{g}a", by: 2, below: 4 };
    const other = { key: "{g}b", by: 1 };
    expect(await store.add([one, other])).toEqual({ refusedAt: undefined, values: [2, 1] });
    expect(await store.add([other, one])).toEqual({ refusedAt: undefined, values: [2, 4] });
    expect(await store.add([other, one])).toEqual({ refusedAt: 1, values: [2, 4] });
    expect(await store.add([{ key: "{g}a", by: -9 }])).toEqual({
      refusedAt: undefined,
      values: [0],
    });
    await store.close();
  });

  it("lets a hundred at once take ten and no more", async () => {
    const store = await opened();
    const all = Array.from({ length: 100 }, async () =>
      store.add([{ key: "n", by: 1, below: 10 }]),
    );
    const made = (await Promise.all(all)).filter(({ refusedAt }) => refusedAt === undefined);
    expect(made).toHaveLength(10);
    expect(await store.add([{ key: "n", by: 0 }])).toEqual({ refusedAt: undefined, values: [10] });
    await store.close();
  });

  it("counts what it has not had yet, within a bound, and refuses nothing that it has", async () => {
    const store = await opened();
    const named = (member: string, by = 1, below = 3) => ({ key: "{m}n", by, below, member });
    const other = { key: "{m}o", by: 1, ttlMs: 60_000 };
    const at = async (...all: Parameters<typeof store.add>[0]) => {
      const { refusedAt, values } = await store.add(all);
      return [refusedAt, ...values];
    };
    expect(await at(named("a"))).toEqual([undefined, 1]);
    expect(await at(named("a"), other)).toEqual([undefined, 1, 1]);
    expect(await at(named("b", 2))).toEqual([undefined, 3]);
    expect(await at(other, named("c"))).toEqual([1, 1, 3]);
    expect(await at(named("a"), other)).toEqual([undefined, 3, 2]);
    // Who only looks leaves nothing.
    expect(await at({ ...named("c", 0), below: 9 })).toEqual([undefined, 3]);
    expect(await at({ ...named("c", 1), below: 9 })).toEqual([undefined, 4]);
    expect(await at(named("c", -1, 9), named("c", -1, 9))).toEqual([undefined, 3, 3]);
    expect(await at({ ...named("d", -5), below: 9 })).toEqual([undefined, 3]);
    expect(await at(named("c"))).toEqual([0, 3]);
    expect(await store.counters(["{m}n"])).toEqual([3]);
    await store.close();
  });

  it("lets a hundred names at once be ten, and the same name a hundred times be one", async () => {
    const store = await opened();
    const all = Array.from({ length: 100 }, async (_, at) =>
      store.add([{ key: "n", by: 1, below: 10, member: `${at}` }]),
    );
    const made = (await Promise.all(all)).filter(({ refusedAt }) => refusedAt === undefined);
    expect(made).toHaveLength(10);
    const one = { key: "same", by: 7, below: 8, member: "x" };
    const again = await Promise.all(Array.from({ length: 100 }, async () => store.add([one])));
    expect(again.every(({ refusedAt, values }) => refusedAt === undefined && values[0] === 7)).toBe(
      true,
    );
    await store.close();
  });

  it("counts in large numbers without losing one", async () => {
    const store = await opened();
    const large = 4_503_599_627_370_496;
    await store.add([{ key: "n", by: large }]);
    expect((await store.add([{ key: "n", by: 1 }])).values).toEqual([large + 1]);
    await store.close();
  });

  it("shows counters without keeping them longer", async () => {
    const store = await opened();
    await store.add([
      { key: "{c}a", by: 3 },
      { key: "{c}b", by: 5, ttlMs: 1 },
    ]);
    await eventually(async () => {
      const [a, b, none] = await store.counters(["{c}a", "{c}b", "{c}none"]);
      expect([a, none]).toEqual([3, 0]);
      return b === 0;
    });
    await store.close();
  });

  it("forgets a counter when its time is over", async () => {
    const store = await opened();
    await store.add([{ key: "n", by: 5, ttlMs: 1 }]);
    await eventually(
      async () => (await store.add([{ key: "n", by: 0, ttlMs: 1 }])).values[0] === 0,
    );
    await store.close();
  });

  it("compares and sets", async () => {
    const store = await opened();
    expect(await store.compareAndSet("k", "x", "y")).toBe(false);
    expect(await store.compareAndSet("k", undefined, "y")).toBe(true);
    expect(await store.compareAndSet("k", undefined, "z")).toBe(false);
    expect(await store.compareAndSet("k", "y", "z", 60_000)).toBe(true);
    expect(await store.get("k")).toBe("z");
    await store.close();
  });

  it("tells whoever listens, and nobody who has left", async () => {
    const store = await opened();
    const heard: string[] = [];
    const end = store.subscribe("c", (message) => void heard.push(message));
    await eventually(async () => {
      await store.publish("c", "hello");
      return heard.includes("hello");
    });
    end();
    heard.length = 0;
    await store.publish("c", "nobody");
    await store.get("c");
    expect(heard).toEqual([]);
    await store.close();
  });

  it("seals values: nobody reads them without a key, and an older key still opens", async () => {
    const store = await opened();
    const old = randomBytes(32);
    let ring = new KeyRing([old]);
    const sealed: StateStore = new SealedStore(store, () => ring);
    await sealed.set("k", "token-of-a-user");
    expect(await store.get("k")).not.toContain("token");
    expect(await sealed.get("k")).toBe("token-of-a-user");
    ring = new KeyRing([randomBytes(32), old]);
    expect(await sealed.get("k")).toBe("token-of-a-user");
    expect(await sealed.compareAndSet("k", "token-of-a-user", "next")).toBe(true);
    expect(await sealed.compareAndSet("k", "token-of-a-user", "again")).toBe(false);
    // What stands under another name, or was altered, does not open.
    await store.set("other", (await store.get("k")) ?? "");
    expect(await sealed.get("other")).toBeUndefined();
    ring = new KeyRing([old]);
    expect(await sealed.get("k")).toBeUndefined();
    await store.close();
  });
});
