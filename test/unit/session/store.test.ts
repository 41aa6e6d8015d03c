import { afterEach, describe, expect, test } from "vitest";
import type { SessionEvent } from "../../../src/session/event.ts";
import { SessionStore, type SessionStoreOptions } from "../../../src/session/store.ts";

class TestClock {
  time = Date.UTC(2026, 0, 1);
  now(): number {
    return this.time;
  }
}

const stores: SessionStore[] = [];

function makeStore(options: SessionStoreOptions = {}): {
  readonly store: SessionStore;
  readonly clock: TestClock;
} {
  const clock = new TestClock();
  const store = new SessionStore({ clock, ...options });
  stores.push(store);
  return { store, clock };
}

afterEach(() => {
  for (const store of stores.splice(0)) store.close();
});

function event(sessionId: string, fields: Partial<SessionEvent> = {}): SessionEvent {
  return {
    sessionId,
    at: "2026-01-01T00:00:00.000Z",
    direction: "outbound",
    phase: "request",
    requestId: "f-1",
    host: "api.example",
    ...fields,
  };
}

const intent = (sessionId: string, text: string): SessionEvent =>
  event(sessionId, { direction: "inbound", a2a: { method: "message/send", text } });

const ids = (store: SessionStore, session: string): (string | undefined)[] =>
  store.get(session)?.events.map((one) => one.requestId) ?? [];

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("listing", () => {
  test("an empty store has no sessions", () => {
    expect(makeStore().store.list()).toEqual([]);
  });

  test("newest first, with counts, times and the one that was appended to last", () => {
    const { store, clock } = makeStore();
    store.record(event("s1"));
    clock.time += 1_000;
    store.record(event("s2"));
    store.record(event("s2"));
    expect(store.list()).toEqual([
      {
        id: "s2",
        createdAt: "2026-01-01T00:00:01.000Z",
        updatedAt: "2026-01-01T00:00:01.000Z",
        eventCount: 2,
        active: true,
      },
      {
        id: "s1",
        createdAt: "2026-01-01T00:00:00.000Z",
        updatedAt: "2026-01-01T00:00:00.000Z",
        eventCount: 1,
        active: false,
      },
    ]);
  });

  test("M15: tokens of answers are summed, those of requests do not count twice", () => {
    const { store } = makeStore({ maxEvents: 2 });
    const inference = { model: "m", totalTokens: 30 };
    store.record(event("s", { inference }));
    store.record(event("s", { phase: "response", inference }));
    store.record(event("s", { phase: "response", inference: { totalTokens: 12 } }));
    store.record(event("s", { phase: "response", inference: { totalTokens: "many" } }));
    expect(store.list()[0]?.totalTokens).toBe(42);
  });

  test("a session that nobody appended to is unknown", () => {
    expect(makeStore().store.get("nobody")).toBeUndefined();
  });
});

describe("age", () => {
  test("M10: an expired session is invisible at once and its memory is given back by removeExpired", () => {
    const { store, clock } = makeStore({ ttlMs: 60_000 });
    store.record(event("old"));
    clock.time += 60_000;
    expect(store.list()).toEqual([]);
    expect(store.get("old")).toBeUndefined();
    expect(store.bytes).toBeGreaterThan(0);
    store.removeExpired();
    expect(store.bytes).toBe(0);
  });

  test("M10: every event starts the time to live again", () => {
    const { store, clock } = makeStore({ ttlMs: 60_000 });
    store.record(event("s"));
    clock.time += 50_000;
    store.record(event("s"));
    clock.time += 50_000;
    expect(store.get("s")?.events).toHaveLength(2);
  });

  test("an event for an expired session starts a new one", () => {
    const { store, clock } = makeStore({ ttlMs: 60_000 });
    store.record(event("s"));
    clock.time += 70_000;
    store.record(event("s"));
    expect(store.list()[0]).toMatchObject({
      eventCount: 1,
      createdAt: "2026-01-01T00:01:10.000Z",
    });
  });
});

describe("bounds", () => {
  test("M11: the intent stays while twenty events pass through a session of five", () => {
    const { store } = makeStore({ maxEvents: 5 });
    store.record(intent("s", "book a flight"));
    for (let index = 0; index < 20; index += 1) {
      store.record(event("s", { requestId: `e${index}` }));
    }
    const kept = store.get("s")?.events ?? [];
    expect(kept).toHaveLength(5);
    expect(kept[0]?.a2a).toEqual({ method: "message/send", text: "book a flight" });
    expect(ids(store, "s").slice(1)).toEqual(["e16", "e17", "e18", "e19"]);
  });

  test("M11: only the newest intent is pinned", () => {
    const { store } = makeStore({ maxEvents: 3 });
    store.record(intent("s", "first"));
    store.record(intent("s", "second"));
    for (let index = 0; index < 9; index += 1) {
      store.record(event("s", { requestId: `e${index}` }));
    }
    const kept = store.get("s")?.events ?? [];
    expect(kept).toHaveLength(3);
    expect(kept.filter((one) => one.a2a !== undefined)).toHaveLength(1);
    expect(kept[0]?.a2a).toMatchObject({ text: "second" });
  });

  test("a new intent releases the pinned one", () => {
    const { store } = makeStore({ maxEvents: 3 });
    store.record(intent("s", "first"));
    for (let index = 0; index < 5; index += 1) store.record(event("s"));
    store.record(intent("s", "second"));
    const texts = store.get("s")?.events.map((one) => one.a2a);
    expect(texts).toEqual([undefined, undefined, { method: "message/send", text: "second" }]);
  });

  test("M12: over the cap the session that was updated longest ago goes", () => {
    const { store, clock } = makeStore({ maxSessions: 2 });
    for (const id of ["a", "b", "a", "c"]) {
      clock.time += 1;
      store.record(event(id));
    }
    expect(store.list().map((one) => one.id)).toEqual(["c", "a"]);
  });

  test("bytes: old sessions go first, then the oldest events of the current one", () => {
    const { store } = makeStore({ maxBytes: 100_000 });
    const large = (id: string, requestId: string): SessionEvent =>
      event(id, { requestId, mcp: { params: "x".repeat(5_000) } });
    for (let index = 0; index < 10; index += 1) store.record(large("old", `o${index}`));
    for (let index = 0; index < 100; index += 1) store.record(large("new", `n${index}`));
    expect(store.bytes).toBeLessThanOrEqual(100_000);
    expect(store.get("old")).toBeUndefined();
    expect(ids(store, "new").at(-1)).toBe("n99");
    expect(ids(store, "new").length).toBeGreaterThan(10);
  });

  test("an event larger than its share is kept without what parsers saw", () => {
    const { store } = makeStore({ maxBytes: 100_000 });
    store.record(event("s", { requestId: "big", mcp: { params: "x".repeat(50_000) } }));
    const [kept] = store.get("s")?.events ?? [];
    expect(kept).toMatchObject({ requestId: "big", host: "api.example" });
    expect(kept?.mcp).toBeUndefined();
  });

  test("a deep or endless view of a body ends the count, not the process", () => {
    const { store } = makeStore();
    const loop: Record<string, unknown> = {};
    loop["self"] = [loop, loop];
    expect(() => store.record(event("s", { mcp: loop }))).not.toThrow();
    expect(store.get("s")?.events[0]?.mcp).toBeUndefined();
    expect(Number.isFinite(store.bytes)).toBe(true);
  });

  test("the count of bytes returns to zero when everything is gone", () => {
    const { store, clock } = makeStore({ maxEvents: 4, ttlMs: 1_000 });
    for (let index = 0; index < 300; index += 1) {
      store.record(index % 7 === 0 ? intent(`s${index % 3}`, "i") : event(`s${index % 3}`));
    }
    store.rekey("s1", "other");
    clock.time += 1_000;
    store.removeExpired();
    expect(store.bytes).toBe(0);
  });
});

describe("rekey", () => {
  test("M13: moves the session, rewrites its events and follows the active one", () => {
    const { store } = makeStore();
    store.record(intent("default", "hello"));
    store.rekey("default", "ctx-abc");
    expect(store.get("default")).toBeUndefined();
    expect(store.get("ctx-abc")?.events.map((one) => one.sessionId)).toEqual(["ctx-abc"]);
    expect(store.list()).toMatchObject([{ id: "ctx-abc", active: true }]);
  });

  test("M13: nothing happens when the target exists, an id is empty or the source is unknown", () => {
    const { store } = makeStore();
    store.record(event("default"));
    store.record(event("taken"));
    for (const [from, to] of [
      ["default", "taken"],
      ["", "x"],
      ["default", ""],
      ["nobody", "x"],
    ] as const) {
      store.rekey(from, to);
    }
    expect(store.list().map((one) => one.id)).toEqual(["taken", "default"]);
  });

  test("keeps the pinned intent pinned and the order of the sessions", () => {
    const { store, clock } = makeStore({ maxEvents: 3 });
    store.record(intent("default", "hello"));
    clock.time += 1;
    store.record(event("later"));
    store.rekey("default", "ctx");
    expect(store.list().map((one) => one.id)).toEqual(["later", "ctx"]);
    for (let index = 0; index < 9; index += 1) store.record(event("ctx"));
    expect(store.get("ctx")?.events[0]).toMatchObject({ sessionId: "ctx", direction: "inbound" });
  });

  test("a long target is cut like every session id", () => {
    const { store } = makeStore();
    store.record(event("default"));
    store.rekey("default", "x".repeat(1_000));
    expect(store.list()[0]?.id).toHaveLength(256);
  });
});

describe("subscriptions", () => {
  test("deliver events in order, after the producer went on", async () => {
    const { store } = makeStore();
    const seen: string[] = [];
    store.subscribe(({ event: one }) => void seen.push(one.requestId));
    store.record(event("s", { requestId: "a" }));
    store.record(event("s", { requestId: "b" }));
    expect(seen).toEqual([]);
    await turn();
    expect(seen).toEqual(["a", "b"]);
  });

  test("M14: a slow reader misses events, which are counted, and nobody waits for it", async () => {
    const { store } = makeStore();
    const { promise, resolve } = Promise.withResolvers<void>();
    const seen: string[] = [];
    const subscription = store.subscribe(
      ({ event: one }) => {
        seen.push(one.requestId);
        return promise;
      },
      { maxQueue: 4 },
    );
    store.record(event("s", { requestId: "first" }));
    await turn();
    for (let index = 0; index < 10; index += 1) {
      store.record(event("s", { requestId: `e${index}` }));
    }
    expect(store.get("s")?.events).toHaveLength(11);
    expect(subscription.dropped).toBe(6);
    resolve();
    await turn();
    expect(seen).toEqual(["first", "e0", "e1", "e2", "e3"]);
    subscription.close();
    expect(store.dropped).toBe(6);
  });

  test("only events of the session that was asked for", async () => {
    const { store } = makeStore();
    const seen: string[] = [];
    store.subscribe(({ event: one }) => void seen.push(one.sessionId), { session: "keep" });
    for (const id of ["keep", "other", "keep"]) store.record(event(id));
    await turn();
    expect(seen).toEqual(["keep", "keep"]);
  });

  test("a listener that throws loses its subscription and harms nobody", async () => {
    const { store } = makeStore();
    const seen: string[] = [];
    store.subscribe(() => {
      throw new Error("gone");
    });
    store.subscribe(({ event: one }) => void seen.push(one.requestId));
    store.record(event("s", { requestId: "a" }));
    await turn();
    store.record(event("s", { requestId: "b" }));
    await turn();
    expect(seen).toEqual(["a", "b"]);
  });

  test("closing ends delivery", async () => {
    const { store } = makeStore();
    const seen: string[] = [];
    const subscription = store.subscribe(({ event: one }) => void seen.push(one.requestId));
    store.record(event("s"));
    subscription.close();
    await turn();
    expect(seen).toEqual([]);
  });
});
