/** Who makes room when bytes wait for peers that do not read. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { BodyBudget } from "../../../src/http/body.ts";
import { Backlog, Backlogs, type SlowPeer } from "../../../src/net/backlogs.ts";

class Peer implements SlowPeer {
  readonly name: string;
  readonly backlog: Backlog;
  held = 0;
  taken = 0;

  constructor(name: string) {
    this.name = name;
    this.backlog = new Backlog(backlogs, this);
  }

  heldBytes(): number {
    return this.held;
  }

  takenBytes(): number {
    return this.taken;
  }

  letGo(): void {
    this.held = 0;
    gone.push(this.name);
  }

  holds(bytes: number): this {
    this.held = bytes;
    this.backlog.note();
    return this;
  }
}

let budget: BodyBudget;
let backlogs: Backlogs;
let gone: string[];

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] });
  budget = new BodyBudget(1_000);
  gone = [];
  backlogs = new Backlogs(budget, () => undefined);
});

afterEach(() => {
  backlogs.close();
  vi.useRealTimers();
});

test("the one that has taken nothing for longest goes first, and no more go than have to", () => {
  const first = new Peer("first").holds(400);
  vi.advanceTimersByTime(1_000);
  new Peer("second").holds(400);
  vi.advanceTimersByTime(1_000);
  first.taken += 1;
  first.backlog.note();
  new Peer("third").holds(400);
  expect(gone).toEqual(["second"]);
  expect(budget.usedBytes).toBe(800);
});

test("a peer that paused just now has a moment, and then goes although nothing else happens", () => {
  new Peer("only").holds(2_000);
  expect(gone).toEqual([]);
  vi.advanceTimersByTime(1_000);
  expect(gone).toEqual(["only"]);
  expect(budget.usedBytes).toBe(0);
});

test("far above the limit nobody has a moment", () => {
  new Peer("only").holds(100_000_000);
  expect(gone).toEqual(["only"]);
});

test("a body that is to be read gets the room of those that stall, where that is enough", () => {
  const peer = new Peer("slow").holds(600);
  vi.advanceTimersByTime(1_000);
  expect(budget.acquire(1_001)).toBe(false);
  expect(gone).toEqual([]);
  vi.advanceTimersByTime(1_000);
  expect(budget.acquire(900)).toBe(true);
  expect(gone).toEqual(["slow"]);
  peer.backlog.close();
  expect(budget.usedBytes).toBe(900);
});

test("what was taken meanwhile counts no more", () => {
  const peer = new Peer("reader").holds(800);
  peer.held = 0;
  peer.taken = 800;
  new Peer("other").holds(900);
  expect(gone).toEqual([]);
  expect(budget.usedBytes).toBe(900);
});
