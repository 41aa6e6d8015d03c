/** Approval: what passes was allowed, exactly that and no more often; every decision is one, and everybody hears of it. */
import { hash } from "node:crypto";
import { type Arbitrary, constantFrom, nat, record } from "fast-check";
import { pino } from "pino";
import { expect, vi } from "vitest";
import { canonicalJson, canonicalRequest } from "../../src/approval/canonical.ts";
import { decide, type Decided } from "../../src/approval/deciding.ts";
import type { Heard } from "../../src/approval/desk-options.ts";
import { Desk } from "../../src/approval/desk.ts";
import type { OpenAsk } from "../../src/approval/ledger.ts";
import type { Gate } from "../../src/approval/rules-served.ts";
import type { Verdict } from "../../src/approval/told.ts";
import { Cancellation } from "../../src/pipeline/cancellation.ts";
import type { Decision } from "../../src/pipeline/decision.ts";
import { Feed } from "../../src/state/feed.ts";
import { MemoryStore } from "../../src/state/memory-store.ts";
import { stateUnavailable } from "../../src/state/store.ts";
import { message } from "../support/plugin-bench.ts";
import { ends, Outside, promise, step, stoppedClock, waits, type World } from "./interleaving.ts";
import { SlowStore } from "./slow-store.ts";

stoppedClock();

const holdMs = 10_000;
const expiresMs = 15_000;
const maxDurationMs = 60_000;
const keptMs = 60_000;

interface Replica {
  readonly desk: Desk;
  readonly gate: Gate;
  basis: string;
  readonly heard: Heard[];
}

interface Asked {
  readonly desk: number;
  readonly path: "/a" | "/b";
  readonly session: "s" | "t" | undefined;
}

interface Waiting extends Asked {
  readonly at: number;
  readonly digest: string;
  readonly cancellation: Cancellation;
  hasLeft: boolean;
  outcome?: Decision;
}

interface Ordered {
  readonly desk: number;
  readonly question: number;
  readonly decision: "allow" | "deny";
  readonly scope: Verdict["scope"];
  readonly by: "ann" | "ben" | "cem";
}

/** Three replicas, of which each has a way of its own to what they share. */
class Replicas implements World {
  readonly outside = new Outside(() => stateUnavailable("test"));
  readonly #isTwoPerson: boolean;
  readonly #feeds: Feed[] = [];
  readonly #replicas: readonly Replica[];
  readonly #requests: Waiting[] = [];
  /** What operators were told counts, and the question as they saw it. */
  readonly #accepted = new Map<string, Verdict>();
  readonly #allowedBy = new Map<string, Set<string>>();
  readonly #passes = new Map<string, number>();
  readonly #problems: string[] = [];

  constructor(isTwoPerson: boolean) {
    this.#isTwoPerson = isTwoPerson;
    const shared = new MemoryStore({ maxBytes: 10_000_000, clock: Date });
    this.#replicas = Array.from({ length: 3 }, () => this.#replica(shared));
  }

  async open(): Promise<this> {
    const starting = this.#replicas.map(({ desk }) => desk.start());
    await this.outside.endAll();
    await Promise.all(starting);
    return this;
  }

  ask(asked: Asked): void {
    const replica = this.#of(asked.desk);
    const cancellation = new Cancellation();
    const context = message({ method: "GET", path: asked.path, cancellation });
    context.sessionId = asked.session;
    const request = canonicalRequest(context)?.text;
    const bound = canonicalJson({ rules: replica.gate.rules, rule: "r", request });
    const digest = hash("sha256", bound);
    const waiting: Waiting = { ...asked, at: Date.now(), digest, cancellation, hasLeft: false };
    this.#requests.push(waiting);
    Promise.resolve(replica.gate.ask(context, { rule: "r", reason: "because" })).then(
      (decision) => this.#over(waiting, decision),
      (error: unknown) => this.#problems.push(`a question rejects: ${String(error)}`),
    );
  }

  leave(at: number): void {
    const waiting = this.#requests.filter(({ outcome }) => outcome === undefined);
    const request = waiting[at % Math.max(1, waiting.length)];
    if (request === undefined) return;
    request.hasLeft = true;
    request.cancellation.abort();
  }

  order({ desk: at, question, decision, scope, by }: Ordered): void {
    const { desk } = this.#of(at);
    const ask = desk.pending[question % Math.max(1, desk.pending.length)];
    if (ask === undefined) return;
    if (decision === "allow") this.#note(ask, by);
    const durationMs = scope === "duration" ? 20_000 : undefined;
    const rules = { expiresMs, maxDurationMs, isTwoPerson: this.#isTwoPerson };
    decide(desk, rules, { id: ask.id, decision, scope, durationMs, reason: "", by }).then(
      (decided) => this.#decided(ask, decided),
      () => undefined,
    );
  }

  /** Other rules for what is asked at this replica. */
  rebase(at: number, basis: string): void {
    const replica = this.#of(at);
    replica.basis = basis;
    replica.gate.rebase(basis);
  }

  check(): void {
    expect(this.#problems).toEqual([]);
    for (const { desk, heard } of this.#replicas) {
      if (desk.held > 0) expect(desk.pending.length, "who waits has a question").toBeGreaterThan(0);
      const ends = heard.filter(({ kind }) => kind === "decided").map((one) => idOf(one));
      expect(new Set(ends).size, "a decision is recorded once").toBe(ends.length);
    }
    for (const { hasLeft, outcome, desk } of this.#requests)
      if (hasLeft && outcome === undefined)
        expect(this.outside.pending, `whoever leaves ${desk} is not held`).toBeGreaterThan(0);
  }

  async end(): Promise<void> {
    await this.outside.endAll(2_000);
    await this.outside.endAll(holdMs);
    this.check();
    expect(this.#requests.filter(({ outcome }) => outcome === undefined)).toEqual([]);
    for (const { desk, heard } of this.#replicas) {
      expect(desk.held).toBe(0);
      const recorded = heard.filter(({ kind }) => kind === "decided").map((one) => idOf(one));
      expect(new Set(recorded), "everybody hears of what was decided").toEqual(
        new Set([...this.#accepted.keys(), ...recorded]),
      );
    }
    await this.outside.endAll(expiresMs + 1_000);
    for (const { desk } of this.#replicas) {
      expect(desk.pending, "a question ends").toEqual([]);
      desk.close();
    }
    for (const feed of this.#feeds) feed.close();
  }

  #of(at: number): Replica {
    const replica = this.#replicas[at];
    if (replica === undefined) throw new Error("no such replica");
    return replica;
  }

  #replica(shared: MemoryStore): Replica {
    const store = new SlowStore(shared, this.outside);
    const feed = new Feed({ store, name: "approvals", keptMs, isShared: true });
    this.#feeds.push(feed);
    const desk = new Desk({
      settings: {
        isPolling: false,
        holdMs,
        expiresMs,
        keepAliveMs: 1_000,
        retryAfterMs: 1_000,
        maxPending: 100,
        maxPendingPerCaller: 100,
        maxHeld: 100,
        maxHeldPerCaller: 100,
      },
      isAnswered: true,
      store,
      feed,
      log: pino({ level: "silent" }),
      count: () => undefined,
      sessionOf: () => undefined,
    });
    desk.begin(1);
    const gate = desk.forPlugin(1, "policy").gate("one") as Gate;
    desk.serve(1);
    const heard: Heard[] = [];
    desk.onHeard((one) => heard.push(one));
    return { desk, gate, basis: "one", heard };
  }

  #note({ id }: OpenAsk, by: string): void {
    this.#allowedBy.set(id, (this.#allowedBy.get(id) ?? new Set()).add(by));
  }

  #decided(ask: OpenAsk, decided: Decided): void {
    if (decided.kind !== "decided") return;
    const { verdict } = decided;
    const before = this.#accepted.get(verdict.id);
    if (before !== undefined && before.decision !== verdict.decision)
      this.#problems.push("a question was allowed and denied");
    if (verdict.digest !== ask.digest) this.#problems.push("decided about something else");
    if (verdict.at >= ask.expiresAt) this.#problems.push("decided when the time was over");
    this.#accepted.set(verdict.id, verdict);
  }

  #over(request: Waiting, decision: Decision): void {
    if (request.outcome !== undefined) this.#problems.push("two outcomes");
    request.outcome = decision;
    if (decision.action === "deny") return;
    const id = String(decision.details?.["approval"]);
    const verdict = this.#verdictOn(id);
    if (verdict === undefined) {
      this.#problems.push("passes, and nobody has decided");
      return;
    }
    if (verdict.decision !== "allow") this.#problems.push("passes, and was denied");
    if (verdict.digest !== request.digest) this.#problems.push("passes, and another was allowed");
    if (verdict.scope === "session" && verdict.session !== request.session)
      this.#problems.push("passes in another session");
    if (verdict.until <= request.at) this.#problems.push("passes when the time is over");
    const persons = this.#allowedBy.get(id) ?? new Set();
    if (persons.size < (this.#isTwoPerson ? 2 : 1) || !verdict.by.every((by) => persons.has(by)))
      this.#problems.push("passes without the persons");
    if (new Set(verdict.by).size < (this.#isTwoPerson ? 2 : 1))
      this.#problems.push("one person counts for two");
    const passes = (this.#passes.get(id) ?? 0) + 1;
    this.#passes.set(id, passes);
    if (passes > 1 && (verdict.scope === "once" || verdict.scope === "policy"))
      this.#problems.push("passes twice, and was allowed once");
  }

  /** As a replica heard of it: the operator may not have been told yet, or that it failed. */
  #verdictOn(id: string): Verdict | undefined {
    for (const { heard } of this.#replicas)
      for (const one of heard)
        if (one.kind === "decided" && one.verdict.id === id) return one.verdict;
    return undefined;
  }
}

function idOf(heard: Heard): string {
  if (heard.kind === "decided") return heard.verdict.id;
  return heard.kind === "asked" || heard.kind === "expired" ? heard.ask.id : heard.id;
}

const asked = record({
  desk: nat({ max: 2 }),
  path: constantFrom("/a", "/a", "/b"),
  session: constantFrom("s", "t", undefined),
}) as Arbitrary<Asked>;
const ordered = record({
  desk: nat({ max: 2 }),
  question: nat({ max: 2 }),
  decision: constantFrom("allow", "allow", "deny"),
  scope: constantFrom("once", "once", "session", "duration", "policy"),
  by: constantFrom("ann", "ben", "cem"),
}) as Arbitrary<Ordered>;

const steps = [
  step<Replicas, Asked>("ask", asked, (world, one) => world.ask(one)),
  step<Replicas, Asked>("ask", asked, (world, one) => world.ask(one)),
  step<Replicas, Ordered>("order", ordered, (world, one) => world.order(one)),
  step<Replicas, Ordered>("order", ordered, (world, one) => world.order(one)),
  step<Replicas, number>("leave", nat({ max: 4 }), (world, at) => world.leave(at)),
  step<Replicas, { desk: number; basis: string }>(
    "rebase",
    record({ desk: nat({ max: 2 }), basis: constantFrom("one", "two") }),
    (world, { desk, basis }) => world.rebase(desk, basis),
  ),
  step<Replicas, number>("end all", nat({ max: 0 }), ({ outside }) => outside.endAll()),
  ends<Replicas>("done"),
  ends<Replicas>("done"),
  ends<Replicas>("done", "failed", "unheard"),
  waits<Replicas>(1, 1_000, 5_000),
  // No call of a store takes that long.
  step<Replicas, number>("wait long", constantFrom(20_000), async ({ outside }, passed) => {
    await outside.endAll();
    await vi.advanceTimersByTimeAsync(passed);
  }),
];

promise(
  "what one person allows passes as often as that says",
  () => new Replicas(false).open(),
  steps,
);
promise(
  "what two persons allow passes, and one of them alone allows nothing",
  () => new Replicas(true).open(),
  steps,
);
