/** Which session a message belongs to when several users are served at once (cases G20, J7, J8, Z9). */
import { afterEach, describe, expect, test } from "vitest";
import { HeaderList } from "../../../src/http/headers.ts";
import { parseAuthority } from "../../../src/net/destination.ts";
import { Cancellation } from "../../../src/pipeline/cancellation.ts";
import { RequestContext, ResponseHalf } from "../../../src/pipeline/context.ts";
import { type Direction, makeFlow } from "../../../src/pipeline/flow.ts";
import { Attribution, type AttributionOptions } from "../../../src/session/attribution.ts";
import { ContentPolicy } from "../../../src/session/content.ts";
import { Redaction } from "../../../src/session/redaction.ts";
import { eventOf } from "../../../src/session/event.ts";
import { SessionRecorder } from "../../../src/session/recorder.ts";
import { SessionStore } from "../../../src/session/store.ts";

interface Message {
  readonly headers?: Readonly<Record<string, string>>;
  readonly host?: string;
  readonly stage?: "connect" | "request";
  readonly parentId?: string;
  readonly hasBody?: boolean;
  readonly a2a?: Readonly<Record<string, unknown>>;
}

const stores: SessionStore[] = [];

afterEach(() => {
  for (const store of stores.splice(0)) store.close();
});

function message(direction: Direction, shape: Message = {}): RequestContext {
  const { headers = {}, host = "svc.example:80", stage = "request", parentId, a2a } = shape;
  const destination = parseAuthority(host, stage === "connect" ? "tcp" : "http");
  const flow = makeFlow({
    direction,
    transport: "http",
    client: { address: "127.0.0.1", port: 1 },
    destination,
    ...(parentId === undefined ? {} : { parentId }),
  });
  const context = new RequestContext({
    flow,
    stage,
    method: "POST",
    path: "/",
    host,
    headers: HeaderList.fromRecord(headers),
    hasBody: shape.hasBody ?? true,
    cancellation: new Cancellation(),
  });
  if (a2a !== undefined) context.facts.set("a2a", a2a);
  return context;
}

const said = (text: string, sessionId?: string): Readonly<Record<string, unknown>> => ({
  method: "message/send",
  parts: [{ kind: "text", content: text }],
  ...(sessionId === undefined ? {} : { sessionId }),
});

/** A proxy's recorder without the proxy. */
function desk(options: Partial<AttributionOptions> = {}) {
  const store = new SessionStore();
  stores.push(store);
  const recorder = new SessionRecorder({
    sinks: [store],
    content: new ContentPolicy({ bodies: "full", maxChars: 0, redaction: new Redaction() }),
    attribution: new Attribution({ store, ...options }),
  });
  const opened = (direction: Direction, shape: Message): RequestContext => {
    const context = message(direction, shape);
    if (direction === "outbound") void recorder.arrived(context);
    void recorder.permitted(context, Date.now());
    return context;
  };
  return {
    store,
    recorder,
    inbound: (shape: Message) => opened("inbound", shape),
    outbound: (shape: Message) => opened("outbound", shape),
    finish: (context: RequestContext) =>
      recorder.finished(context, { phase: "response", at: Date.now(), statusCode: 200 }),
    sessions: () =>
      Object.fromEntries(store.list().map(({ id, eventCount }) => [id, eventCount] as const)),
  };
}

const traceparent = (
  trace: string,
  span = "b7ad6b7169203331",
): Readonly<Record<string, string>> => ({
  traceparent: `00-${trace.padEnd(32, "0")}-${span}-01`,
});

describe("a mark ties an outbound message to the conversation of the inbound one that carried it", () => {
  const ties: [string, Readonly<Record<string, string>>, Readonly<Record<string, string>>][] = [
    ["trace", traceparent("a1"), traceparent("a1", "00f067aa0ba902b7")],
    ["configured header", { "x-conversation": "c-7" }, { "X-Conversation": "c-7" }],
    ["bearer credential", { authorization: "Bearer tok-1" }, { Authorization: "bearer tok-1" }],
  ];
  for (const [kind, incoming, outgoing] of ties) {
    test(`Z9: ${kind}`, () => {
      const { inbound, outbound, finish, sessions } = desk({ field: "X-Conversation" });
      const asked = inbound({ headers: incoming, a2a: said("book", "ctx-1") });
      inbound({ headers: {}, a2a: said("other", "ctx-2") });
      finish(outbound({ headers: outgoing }));
      finish(asked);
      // The operator's header is the session's name, whatever the protocol calls the conversation.
      const name = kind === "configured header" ? "c-7" : "ctx-1";
      expect(sessions()).toEqual({ [name]: 4, "ctx-2": 1 });
    });
  }

  test("the trace that the proxy itself began", () => {
    const { inbound, outbound, sessions } = desk();
    const asked = inbound({ a2a: said("book", "ctx-1") });
    const begun = asked.headers.get("traceparent") ?? "";
    expect(begun).toMatch(/^00-[\da-f]{32}-[\da-f]{16}-01$/);
    outbound({ headers: { traceparent: begun } });
    expect(sessions()).toEqual({ "ctx-1": 2 });
  });

  test("a credential that the chain replaces afterwards still counts as it came", () => {
    const { inbound, recorder, sessions } = desk();
    inbound({ headers: { authorization: "Bearer user" }, a2a: said("x", "ctx-1") });
    const context = message("outbound", { headers: { authorization: "Bearer user" } });
    void recorder.arrived(context);
    context.headers.set("Authorization", "Bearer exchanged");
    void recorder.permitted(context, Date.now());
    expect(sessions()).toEqual({ "ctx-1": 2 });
  });

  test("a request inside a tunnel follows the CONNECT that carried the mark", () => {
    const { inbound, outbound, sessions } = desk();
    inbound({ headers: traceparent("a1"), a2a: said("x", "ctx-1") });
    const tunnel = outbound({
      headers: traceparent("a1"),
      stage: "connect",
      host: "a.example:443",
    });
    outbound({ host: "a.example:443", parentId: tunnel.flow.id });
    expect(sessions()).toEqual({ "ctx-1": 3 });
  });

  test("an MCP session that was tied once ties its next messages, on its own server alone", () => {
    const { inbound, outbound, finish, sessions } = desk();
    const asked = inbound({ headers: traceparent("a1"), a2a: said("x", "ctx-1") });
    const initialize = outbound({ headers: traceparent("a1") });
    initialize.response = new ResponseHalf(200, new HeaderList(["Mcp-Session-Id", "m-1"]));
    finish(initialize);
    finish(asked);
    outbound({ headers: { "mcp-session-id": "m-1" } });
    outbound({ headers: { "mcp-session-id": "m-1" }, host: "other.example:80" });
    expect(sessions()).toEqual({ "ctx-1": 5, "m-1": 1 });
  });
});

describe("what nothing ties belongs to the one conversation that is being served", () => {
  test("whatever other marks it carries, and with the answer's name", () => {
    const { inbound, outbound, finish, sessions } = desk();
    finish(inbound({ a2a: said("earlier", "ctx-0") }));
    const asked = inbound({ a2a: said("x") });
    finish(outbound({ headers: { authorization: "Bearer own", ...traceparent("ff") } }));
    asked.facts.set("a2a", { ...said("x"), sessionId: "ctx-1" });
    finish(outbound({ headers: { "mcp-session-id": "m-1" } }));
    finish(asked);
    expect(sessions()).toEqual({ "ctx-0": 2, "ctx-1": 6 });
  });

  test("two messages of one conversation are one", () => {
    const { inbound, outbound, sessions } = desk();
    inbound({ a2a: said("x", "ctx-1") });
    inbound({ a2a: said("y", "ctx-1") });
    outbound({});
    expect(sessions()).toEqual({ "ctx-1": 3 });
  });

  test("but a field of its own names another", () => {
    const { inbound, outbound, sessions } = desk({ field: "x-conversation" });
    inbound({ a2a: said("x", "ctx-1") });
    outbound({ headers: { "x-conversation": "job-7" } });
    expect(sessions()).toEqual({ "ctx-1": 1, "job-7": 1 });
  });

  test("an MCP session and a tunnel that it opened serve the next conversation as well", () => {
    const { inbound, outbound, finish, sessions } = desk();
    const first = inbound({ a2a: said("x", "ctx-1") });
    const tunnel = outbound({ stage: "connect", host: "a.example:443" });
    const initialize = outbound({ host: "a.example:443", parentId: tunnel.flow.id });
    initialize.response = new ResponseHalf(200, new HeaderList(["Mcp-Session-Id", "m-1"]));
    finish(initialize);
    finish(first);
    inbound({ a2a: said("y", "ctx-2") });
    const headers = { "mcp-session-id": "m-1" };
    outbound({ headers, host: "a.example:443", parentId: tunnel.flow.id });
    expect(sessions()).toEqual({ "ctx-1": 5, "ctx-2": 2 });
  });

  test("a pair stays together when its conversation is over, or was not there yet", () => {
    const { inbound, outbound, finish, sessions } = desk();
    const early = outbound({});
    const asked = inbound({ a2a: said("x", "ctx-1") });
    const late = outbound({});
    finish(early);
    finish(asked);
    finish(late);
    expect(sessions()).toEqual({ default: 2, "ctx-1": 4 });
  });
});

describe("nobody guesses", () => {
  test("J8: an inbound message without a context id goes to default, whoever else is active", () => {
    const { inbound, sessions } = desk();
    inbound({ a2a: said("x", "ctx-live") });
    inbound({});
    expect(sessions()).toEqual({ "ctx-live": 1, default: 1 });
  });

  test("an outbound message that nothing ties goes to default while two conversations are served, or none", () => {
    const { inbound, outbound, finish, sessions } = desk();
    const untied = () => outbound({ headers: { authorization: "Bearer b", ...traceparent("ff") } });
    const asked = [inbound({ a2a: said("x", "ctx-1") }), inbound({ a2a: said("y", "ctx-2") })];
    untied();
    for (const one of asked) finish(one);
    untied();
    expect(sessions()).toEqual({ "ctx-1": 2, "ctx-2": 2, default: 2 });
  });

  test("the verified user of a conversation is known to what follows from it, and to nothing else", () => {
    const { recorder } = desk();
    const serve = (name: string, trace: string): void => {
      const context = message("inbound", { headers: traceparent(trace), a2a: said("x", name) });
      context.setIdentity({ subject: `user-of-${name}`, scopes: [], claims: {} });
      void recorder.permitted(context, Date.now());
    };
    serve("ctx-1", "a1");
    serve("ctx-2", "b2");
    const known = (headers: Readonly<Record<string, string>>): (string | undefined)[] => {
      const context = message("outbound", { headers });
      void recorder.arrived(context);
      return [recorder.subjectOf(context), recorder.sessionOf(context)];
    };
    expect(known(traceparent("a1"))).toEqual(["user-of-ctx-1", "ctx-1"]);
    expect(known(traceparent("b2"))).toEqual(["user-of-ctx-2", "ctx-2"]);
    expect(known({})).toEqual([undefined, undefined]);
    expect(known({ "mcp-session-id": "m-1" })).toEqual([undefined, "m-1"]);
  });

  test("nor while the agent serves something that is no conversation, unless it asks for nothing", () => {
    const { inbound, outbound, finish, recorder, sessions } = desk();
    inbound({ a2a: said("x", "ctx-1") });
    const other = inbound({});
    finish(outbound({}));
    const judged = message("outbound");
    void recorder.arrived(judged);
    expect([recorder.intentOf(judged), recorder.isInDoubt(judged)]).toEqual([undefined, true]);
    finish(other);
    inbound({ hasBody: false });
    outbound({});
    expect(sessions()).toEqual({ "ctx-1": 2, default: 5 });
  });

  test("a mark of two conversations at once ties nothing, and ties again when one is over", () => {
    const { inbound, outbound, finish, sessions } = desk();
    const shared = { authorization: "Bearer service" };
    const first = inbound({ headers: shared, a2a: said("x", "ctx-1") });
    inbound({ headers: shared, a2a: said("y", "ctx-2") });
    outbound({ headers: shared });
    finish(first);
    outbound({ headers: shared });
    expect(sessions()).toEqual({ "ctx-1": 2, "ctx-2": 2, default: 1 });
  });

  test("an untied MCP session is a session of its own, its initialize included", () => {
    const { outbound, finish, sessions } = desk();
    const initialize = outbound({});
    initialize.response = new ResponseHalf(200, new HeaderList(["mcp-session-id", "m-9"]));
    finish(initialize);
    finish(outbound({ headers: { "mcp-session-id": "m-9" } }));
    expect(sessions()).toEqual({ "m-9": 4 });
  });

  test("a plain inbound message is given no traceparent", () => {
    expect(desk().inbound({}).headers.has("traceparent")).toBe(false);
    const off = desk({ addTraceparent: false }).inbound({ a2a: said("x", "ctx") });
    expect(off.headers.has("traceparent")).toBe(false);
  });
});

describe("a conversation that its answer names", () => {
  test("J7: moves its own events, and what followed from it, and nobody else's", () => {
    const { inbound, outbound, finish, sessions } = desk();
    const mine = inbound({ headers: traceparent("a1"), a2a: said("mine") });
    const other = inbound({ headers: traceparent("b2"), a2a: said("other") });
    const call = outbound({ headers: traceparent("a1") });
    const late = outbound({ headers: traceparent("b2") });
    expect(sessions()).toEqual({ default: 4 });
    mine.facts.set("a2a", { ...said("mine"), sessionId: "ctx-1234" });
    finish(call);
    finish(mine);
    expect(sessions()).toEqual({ "ctx-1234": 4, default: 2 });
    other.facts.set("a2a", { ...said("other"), sessionId: "ctx-5" });
    finish(other);
    finish(late);
    expect(sessions()).toEqual({ "ctx-1234": 4, "ctx-5": 4 });
  });

  test("a question about its task belongs to it", () => {
    const { inbound, finish, sessions } = desk();
    const asked = inbound({ a2a: said("x") });
    asked.facts.set("a2a", { ...said("x"), sessionId: "ctx-1", taskId: "task-1" });
    finish(asked);
    inbound({ a2a: { method: "tasks/get", taskId: "task-1" } });
    expect(sessions()).toEqual({ "ctx-1": 3 });
  });
});

describe("intent", () => {
  test("Z9: is the one of the user whose request the message follows from", () => {
    const { inbound, recorder } = desk();
    inbound({ headers: traceparent("a1"), a2a: said("book a flight", "ctx-a") });
    inbound({ headers: traceparent("b2"), a2a: said("delete nothing", "ctx-b") });
    const intents = ["a1", "b2"].map((trace) => {
      const context = message("outbound", { headers: traceparent(trace) });
      void recorder.arrived(context);
      return recorder.intentOf(context.shadow());
    });
    expect(intents).toMatchObject([
      { text: "book a flight", sessionId: "ctx-a" },
      { text: "delete nothing", sessionId: "ctx-b" },
    ]);
  });

  test("is kept by the session when the answer is out", () => {
    const { inbound, finish, recorder } = desk();
    finish(inbound({ headers: traceparent("a1"), a2a: said("book", "ctx-a") }));
    const context = message("outbound", { headers: traceparent("a1") });
    void recorder.arrived(context);
    expect(recorder.intentOf(context)?.text).toBe("book");
  });

  /** What a judge hears of a message that nothing ties. */
  function heard(recorder: SessionRecorder): [string | undefined, boolean] {
    const untied = message("outbound");
    void recorder.arrived(untied);
    return [recorder.intentOf(untied)?.text, recorder.isInDoubt(untied)];
  }

  test.each([
    ["with names", "ctx-a", "ctx-b"],
    ["without names", undefined, undefined],
  ])(
    "of conversations %s is that of the one being served, and nobody's while two are",
    (...row) => {
      const { inbound, finish, recorder } = desk();
      const [, a, b] = row;
      const first = inbound({ a2a: said("first", a) });
      expect(heard(recorder)).toEqual(["first", false]);
      const second = inbound({ a2a: said("second", b) });
      expect(heard(recorder)).toEqual([undefined, true]);
      finish(first);
      expect(heard(recorder)).toEqual(["second", false]);
      finish(second);
      finish(inbound({ a2a: said("third", "ctx-c") }));
      expect(heard(recorder)).toEqual([undefined, true]);
      inbound({ a2a: said("fourth", "ctx-d") });
      expect(heard(recorder)).toEqual(["fourth", false]);
    },
  );

  test("nobody has said anything: undefined", () => {
    expect(desk().recorder.intentOf(message("outbound"))).toBeUndefined();
  });
});

test("marks that strangers send are forgotten, the oldest first, and never grow without bound", () => {
  const { inbound, outbound, finish, sessions } = desk();
  finish(inbound({ headers: { authorization: "Bearer first" }, a2a: said("x", "ctx-first") }));
  for (let index = 0; index < 10_000; index += 1) {
    const headers = { authorization: `Bearer stranger-${index}` };
    finish(inbound({ headers, a2a: said("x", `ctx-${index % 50}`) }));
  }
  outbound({ headers: { authorization: "Bearer first" } });
  expect(sessions()["default"]).toBe(1);
});

test("G11: a refused message is recorded in the session that it follows from", () => {
  const { inbound, recorder, store } = desk();
  inbound({ headers: traceparent("a1"), a2a: said("x", "sess-active") });
  const refused = message("outbound", { headers: traceparent("a1") });
  void recorder.arrived(refused);
  recorder.finished(refused, { phase: "denied", at: Date.now(), statusCode: 403 });
  expect(store.get("sess-active")?.events.at(-1)).toMatchObject({
    phase: "denied",
    statusCode: 403,
  });
  expect(eventOf(refused, { phase: "denied", at: 0 }).sessionId).toBe("sess-active");
});
