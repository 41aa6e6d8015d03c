/** What the thread in control makes of the words of others, in whatever order they come. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { SessionParts } from "../../../src/app/session-parts.ts";
import type { Asked, Whose } from "../../../src/crew/calls.ts";
import { CrewSessions } from "../../../src/crew/crew-sessions.ts";
import type { SessionEvent } from "../../../src/session/event.ts";
import { TurnLedger } from "../../../src/session/ledger.ts";
import { SessionStore } from "../../../src/session/store.ts";
import type { TurnFacts } from "../../../src/session/turn.ts";
import { Usage } from "../../../src/session/usage.ts";
import { Order } from "../../../src/threads/order.ts";

let store: SessionStore;
let order: Order;
let sessions: CrewSessions;
let names: Map<string, string>;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  store = new SessionStore();
  order = new Order(2);
  names = new Map();
  sessions = new CrewSessions({
    sessions: {
      kept: { store, usage: new Usage() },
      ledger: new TurnLedger({ store }),
    } as unknown as SessionParts,
    order,
    nameOf: (thread, id) => {
      const sessionId = names.get(id);
      if (sessionId !== undefined) {
        order.told(thread);
        sessions.told(thread, { kind: "named", id, sessionId });
      }
      return Promise.resolve(sessionId);
    },
  });
});

afterEach(() => {
  sessions.close();
  store.close();
  vi.useRealTimers();
});

const message = (id: string, over: Partial<TurnFacts> = {}): TurnFacts => ({
  id,
  sessionId: `ctx-${id}`,
  intent: `words of ${id}`,
  startedAt: Date.now(),
  keys: [`trace ${id}`],
  isServed: true,
  ...over,
});

const asked = (trace?: string): Asked => ({
  question: {
    flowId: "asks",
    parentId: undefined,
    authority: "tools.test:80",
    correlation: trace === undefined ? undefined : { trace },
  },
  after: order.now,
});

const wordsOf = ({ found }: Whose): string | undefined => found?.intent;

test("a message that was told of and not heard yet is known when somebody asks who is served", async () => {
  order.told(0);
  sessions.told(0, { kind: "open", facts: message("first") });
  order.told(1);
  const answer = sessions.whose(asked());
  let isAnswered = false;
  void answer.then(() => {
    isAnswered = true;
  });
  await Promise.resolve();
  expect(isAnswered).toBe(false);
  sessions.told(1, { kind: "open", facts: message("second") });
  expect(await answer).toMatchObject({ around: { isSeveral: true } });
  expect(wordsOf(await answer)).toBeUndefined();
  expect(wordsOf(await sessions.whose(asked("first")))).toBe("words of first");
});

test("what a thread had that is gone is served for a while, and known by what it shares", async () => {
  order.told(0);
  sessions.told(0, { kind: "open", facts: message("first") });
  order.told(0);
  sessions.told(0, { kind: "begun", id: "other" });
  sessions.forget(0);
  order.told(1);
  sessions.told(1, { kind: "open", facts: message("second") });
  expect((await sessions.whose(asked())).turn).toBeUndefined();
  expect(wordsOf(await sessions.whose(asked("first")))).toBe("words of first");
  vi.advanceTimersByTime(30_000);
  expect(wordsOf(await sessions.whose(asked()))).toBe("words of second");
});

test("events that come later than the name of their conversation are in it", async () => {
  order.told(0);
  sessions.told(0, { kind: "open", facts: message("first", { sessionId: undefined }) });
  names.set("first", "named");
  const { turn } = await sessions.whose(asked("first"));
  expect(turn).toMatchObject({ sessionId: "named" });
  const event: SessionEvent = {
    sessionId: "default",
    requestId: "first",
    at: new Date().toISOString(),
    direction: "inbound",
    phase: "request",
    host: "agent.test",
  };
  sessions.record({ kind: "event", event, shownIn: "default" });
  expect(store.list().map(({ id }) => id)).toEqual(["named"]);
});

test("a message that names a task alone has the session of the task", async () => {
  order.told(0);
  sessions.told(0, { kind: "open", facts: message("first") });
  order.told(0);
  sessions.told(0, { kind: "closed", id: "first", taskId: "task" });
  order.told(1);
  const facts = message("second", { sessionId: undefined, taskId: "task", isServed: false });
  expect(await sessions.opened(1, facts)).toBe("ctx-first");
  expect(order.backlog(1)).toBe(0);
});
