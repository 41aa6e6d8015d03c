/** Desks of two replicas that lose sight of each other: a question is seen, and a decision counts, wherever it was told first. */
import { pino } from "pino";
import { afterEach, expect, test, vi } from "vitest";
import { Claims } from "../../../src/approval/claims.ts";
import { decide, type Decided } from "../../../src/approval/deciding.ts";
import { Desk } from "../../../src/approval/desk.ts";
import { Ledger } from "../../../src/approval/ledger.ts";
import type { Ask, Told, Verdict } from "../../../src/approval/told.ts";
import type { Decision } from "../../../src/pipeline/decision.ts";
import { Feed } from "../../../src/state/feed.ts";
import { MemoryStore } from "../../../src/state/memory-store.ts";
import { type StateStore, stateUnavailable } from "../../../src/state/store.ts";
import { message } from "../../support/plugin-bench.ts";

const expiresMs = 15_000;
const ends: (() => void)[] = [];

afterEach(() => {
  for (const end of ends.splice(0)) end();
  vi.useRealTimers();
});

/** What it tells reaches nobody. */
class Mute extends MemoryStore {
  override add(): never {
    throw stateUnavailable("test");
  }
}

const shared = (): MemoryStore => new MemoryStore({ maxBytes: 1_000_000 });

async function desk(store: StateStore, told: StateStore = store): Promise<Desk> {
  const feed = new Feed({ store: told, name: "approvals", keptMs: 60_000, isShared: false });
  const made = new Desk({
    settings: {
      isPolling: false,
      holdMs: 600_000,
      expiresMs,
      keepAliveMs: 1_000,
      retryAfterMs: 1_000,
      maxPending: 10,
      maxPendingPerCaller: 10,
      maxHeld: 10,
      maxHeldPerCaller: 10,
    },
    isAnswered: true,
    store,
    feed,
    log: pino({ level: "silent" }),
    count: () => undefined,
    sessionOf: () => undefined,
  });
  made.begin(1);
  made.serve(1);
  await made.start();
  ends.push(() => {
    made.close();
    feed.close();
  });
  return made;
}

function ask(at: Desk): Promise<Decision> {
  const gate = at.forPlugin(1, "policy").gate("rules");
  return Promise.resolve(gate.ask(message(), { reason: "because" }));
}

function order(at: Desk, by: string, decision = "allow", isTwoPerson = false): Promise<Decided> {
  const id = at.pending[0]?.id ?? "";
  const rules = { expiresMs, maxDurationMs: 60_000, isTwoPerson };
  const scope = "once";
  return decide(at, rules, { id, decision, scope, durationMs: undefined, reason: "", by });
}

test("a question of which nobody was told is told by whoever asks the same", async () => {
  const store = shared();
  const [gone, here] = [await desk(store, new Mute({ maxBytes: 1 })), await desk(store)];
  void ask(gone);
  await vi.waitFor(() => expect(gone.pending).toHaveLength(1));
  const asked = ask(here);
  await vi.waitFor(() => expect(here.pending).toHaveLength(1));
  expect(here.pending[0]?.id).toBe(gone.pending[0]?.id);
  expect(await order(here, "ann")).toMatchObject({ kind: "decided" });
  expect(await asked).toMatchObject({ action: "allow", reason: "approved" });
});

test("a decision of which nobody was told counts with the next order, and is not another one", async () => {
  const store = shared();
  const [gone, here] = [await desk(store, new Mute({ maxBytes: 1 })), await desk(store)];
  void ask(gone);
  await vi.waitFor(() => expect(gone.pending).toHaveLength(1));
  const asked = ask(here);
  await vi.waitFor(() => expect(here.held).toBe(1));
  expect(await order(gone, "ann", "deny")).toMatchObject({ kind: "decided" });
  expect(await order(here, "ben")).toMatchObject({ kind: "over" });
  expect(await asked).toMatchObject({ action: "deny", reason: "approval_denied" });
});

test("two persons who are the first at once can still allow", async () => {
  const store = shared();
  const [one, other] = [await desk(store), await desk(store)];
  const asked = ask(one);
  await vi.waitFor(() => expect(other.pending).toHaveLength(1));
  const first = [order(one, "ann", "allow", true), order(other, "ben", "allow", true)];
  expect((await Promise.all(first)).map(({ kind }) => kind)).toEqual(["voted", "voted"]);
  await vi.waitFor(() => expect(one.pending[0]?.votes).toHaveLength(2));
  expect(await order(one, "ann", "allow", true)).toMatchObject({ kind: "decided" });
  expect(await asked).toMatchObject({ action: "allow", details: { by: "ann ben" } });
});

test("an order comes too late when the time is over, also before the question was put away", async () => {
  const store = shared();
  const one = await desk(store);
  void ask(one);
  await vi.waitFor(() => expect(one.pending).toHaveLength(1));
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + expiresMs });
  expect(await order(one, "ann")).toMatchObject({ kind: "over" });
});

test("what was decided elsewhere before the question ended here is heard of once", () => {
  const ledger = new Ledger(10);
  const question = {
    id: "q",
    digest: "d",
    at: 0,
    expiresAt: 10,
    request: {},
    plugin: "p",
    why: "",
  };
  const verdict: Verdict = {
    id: "q",
    digest: "d",
    decision: "allow",
    by: ["ann"],
    scope: "once",
    until: 20,
    at: 9,
  };
  const decided: Told = { kind: "decided", verdict };
  ledger.take({ kind: "asked", ask: question as unknown as Ask }, 0);
  expect(ledger.expire(10)).toHaveLength(1);
  expect(ledger.take(decided, 11)).toBe(true);
  expect(ledger.take({ kind: "withdrawn", id: "q", why: "" }, 11)).toBe(false);
  expect(ledger.take(decided, 12)).toBe(false);
});

test("once is once also for a replica that takes it for valid a little longer", async () => {
  const now = Date.now();
  vi.useFakeTimers({ toFake: ["Date"], now });
  const claims = new Claims(shared(), expiresMs);
  const verdict = { id: "q", until: now + 1_000 } as Verdict;
  expect(await claims.use(verdict)).toBe(true);
  vi.setSystemTime(now + 2_000);
  expect(await claims.use(verdict)).toBe(false);
});
