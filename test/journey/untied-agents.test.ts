/** Agents that pass nothing on: whose words their actions are judged by, and how the record says that it knows. */
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { request, type RawResponse, RawClient, renderRequest } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { StandInJudge } from "../support/judge.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { OtlpCollector } from "../support/otlp.ts";
import { owner } from "../support/owner.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { allEvents, type SeenEvent } from "../support/session-events.ts";

const own = owner();
const json = { "Content-Type": "application/json" };
let agent: HttpOrigin;
let tools: HttpOrigin;
let judge: StandInJudge;
let idp: StubIdp;
let collector: OtlpCollector;
let proxy: ProxyProcess;

beforeAll(async () => {
  judge = await own(StandInJudge.start());
  idp = await own(StubIdp.start());
  collector = await own(OtlpCollector.start());
  tools = await own(
    HttpOrigin.launch(() => reply(200, '{"jsonrpc":"2.0","id":7,"result":{}}', json)),
  );
});

/** A process of its own for each test: sessions are remembered. */
beforeEach(async () => {
  judge.forget();
  agent = await own(HttpOrigin.launch());
  const jwt = { name: "jwt-validation", config: { issuer: idp.issuer, audience: "agent" } };
  proxy = await own(
    ProxyProcess.start(
      merge(
        settings({
          listener: { reverse_proxy_backend: agent.url },
          telemetry: { otlp: { endpoint: collector.url } },
        }),
        merge(
          inbound(jwt, "a2a-parser", "mcp-parser"),
          outbound("mcp-parser", {
            name: "ibac",
            config: { judge_endpoint: judge.url, judge_model: "m", no_intent_policy: "deny" },
          }),
        ),
      ),
    ),
  );
});

interface Said {
  readonly context?: string;
  readonly user?: string;
  readonly method?: string;
  readonly params?: object;
}

interface Open {
  /** The agent answers, and the client has the response. */
  readonly answer: (body?: object) => Promise<RawResponse>;
}

/** A message that the agent has, and has not answered. */
async function say(text: string, said: Said = {}): Promise<Open> {
  const { context, user = "alice", method = "message/send" } = said;
  const message = {
    kind: "message",
    role: "user",
    messageId: "m",
    parts: [{ kind: "text", text }],
    ...(context === undefined ? {} : { contextId: context }),
  };
  const token = await idp.token({ claims: { sub: user } });
  const body = { jsonrpc: "2.0", id: 1, method, params: said.params ?? { message } };
  return held({
    method: "POST",
    target: "/",
    headers: { Host: "agent.test", Authorization: `Bearer ${token}`, ...json },
    body: JSON.stringify(body),
  });
}

/** A request of a client that the agent has, and has not answered. */
async function held(shape: Parameters<typeof renderRequest>[0]): Promise<Open> {
  const gate = Promise.withResolvers<string>();
  const before = agent.requests.length;
  agent.answer = () => gate.promise;
  const answered = request(proxy.reverse, shape);
  await eventually(() => agent.requests.length > before);
  return {
    answer: (body = { jsonrpc: "2.0", id: 1, result: { kind: "message", parts: [] } }) => {
      gate.resolve(reply(200, JSON.stringify(body), json));
      return answered;
    },
  };
}

const call = '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"act"}}';

function action(): Parameters<typeof renderRequest>[0] {
  return {
    method: "POST",
    target: `${tools.url}/mcp`,
    headers: { Host: tools.authority, ...json },
    body: call,
  };
}

/** The agent calls a tool, and passes nothing on. */
async function act(): Promise<string> {
  return (await request(proxy.forward, action())).text;
}

const read = async (path: string): Promise<string> => (await proxy.sessions(path)).text;

async function acted(): Promise<readonly (SeenEvent & { readonly tiedBy?: string })[]> {
  return (await allEvents(read)).filter(({ direction }) => direction === "outbound");
}

const words = (): readonly (string | undefined)[] =>
  judge.questions.map(({ messages }) => messages.at(-1)?.content.split("\n")[1]);

describe("one message is being served", () => {
  test("the action is tied to it; event, trace and verdict say that this is how it is known", async () => {
    const message = await say("read the weather", { context: "ctx-1" });
    expect(await act()).toContain('"result"');
    await message.answer();
    expect(words()).toEqual(['"read the weather"']);
    const events = await eventually(async () => {
      const found = await acted();
      return found.length === 2 && found;
    });
    expect(events).toMatchObject([
      { sessionId: "ctx-1", phase: "request", tiedBy: "served" },
      { sessionId: "ctx-1", phase: "response", tiedBy: "served" },
    ]);
    const steps = events.flatMap(({ invocations }) => invocations?.["outbound"] ?? []);
    expect(steps.find(({ plugin }) => plugin === "ibac")).toMatchObject({
      details: { intent_tie: "served" },
    });
    await eventually(() =>
      collector.spans.some(
        ({ attributes }) =>
          attributes["authbridge.session"] === "ctx-1" &&
          attributes["authbridge.session.tied_by"] === "served",
      ),
    );
  });

  test("the second conversation after the first is judged by its own words", async () => {
    for (const [context, text] of [
      ["ctx-1", "one"],
      ["ctx-2", "two"],
      ["ctx-3", "three"],
    ] as const) {
      const message = await say(text, { context, user: context });
      expect(await act()).toContain('"result"');
      await message.answer();
    }
    expect(words()).toEqual(['"one"', '"two"', '"three"']);
    // Nobody is served any more, and three have asked for something.
    expect(await act()).toContain("ibac.no_session");
  });

  test("an action that began while one was served stays with it, whoever is served when its body ends", async () => {
    const first = await say("words of the first", { user: "first" });
    const client = await RawClient.connect(proxy.forward);
    const bytes = renderRequest(action());
    client.send(bytes.subarray(0, bytes.length - 10));
    // The first message, and the action whose head has come.
    await eventually(async () => (await proxy.metric("authbridge_active_flows")) === 2);
    await first.answer();
    const second = await say("words of the second", { user: "second" });
    client.send(bytes.subarray(bytes.length - 10));
    expect((await client.response("POST")).text).toContain('"result"');
    client.socket.destroy();
    await second.answer();
    expect(words()).toEqual(['"words of the first"']);
  });

  test("its own words, where they are none, are not somebody else's of the same unnamed session", async () => {
    const first = await say("words of the first", { user: "first" });
    await first.answer();
    const second = await say("", { user: "second" });
    expect(await act()).toMatch(/ibac\.no_/);
    await second.answer();
    expect(judge.requests).toHaveLength(0);
  });
});

describe("several messages are being served", () => {
  test("of two conversations: the action is refused until one of them is over", async () => {
    const first = await say("one", { context: "ctx-1" });
    const second = await say("two", { context: "ctx-2" });
    expect(await act()).toContain("ibac.no_session");
    await first.answer();
    expect(await act()).toContain('"result"');
    await second.answer();
    expect(words()).toEqual(['"two"']);
  });

  test("of one conversation: they are one", async () => {
    const first = await say("one", { context: "ctx-1" });
    const second = await say("two", { context: "ctx-1" });
    expect(await act()).toContain('"result"');
    await Promise.all([first.answer(), second.answer()]);
    expect(words()).toEqual(['"two"']);
  });

  test("of two users who name one conversation: a user could put words into another one's", async () => {
    const first = await say("one", { context: "ctx-1", user: "alice" });
    const second = await say("two", { context: "ctx-1", user: "mallory" });
    expect(await act()).toContain("ibac.no_session");
    await second.answer();
    expect(await act()).toContain('"result"');
    await first.answer();
    expect(words()).toEqual(['"one"']);
  });

  test("a hundred of them: nothing is asked or guessed, and the last one is alone", async () => {
    const open: Open[] = [];
    for (let index = 0; index < 100; index += 1)
      open.push(await say(`words of ${index}`, { context: `ctx-${index}` }));
    const refused = await Promise.all(Array.from({ length: 20 }, act));
    expect(refused.every((text) => text.includes("ibac.no_session"))).toBe(true);
    expect(judge.requests).toHaveLength(0);
    const last = open.pop();
    await Promise.all(open.map(({ answer }) => answer()));
    expect(await act()).toContain('"result"');
    await last?.answer();
    expect(words()).toEqual(['"words of 99"']);
  });

  test("a message that no parser reads is one, too", async () => {
    const message = await say("one", { context: "ctx-1" });
    const token = await idp.token();
    const other = await held({
      method: "POST",
      target: "/chat",
      headers: { Host: "agent.test", Authorization: `Bearer ${token}` },
      body: "do something",
    });
    expect(await act()).toContain("ibac.no_session");
    await other.answer({});
    expect(await act()).toContain('"result"');
    await message.answer();
  });

  test("a connection that was upgraded is one, as long as it is open", async () => {
    const message = await say("one", { context: "ctx-1" });
    const token = await idp.token();
    agent.answer = () =>
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
    const client = await RawClient.connect(proxy.reverse);
    client.send(
      `GET /chat HTTP/1.1\r\nHost: agent.test\r\nAuthorization: Bearer ${token}\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n`,
    );
    expect((await client.response()).status).toBe(101);
    expect(await act()).toContain("ibac.no_session");
    client.socket.destroy();
    await eventually(async () => (await act()).includes('"result"'));
    await message.answer();
  });
});

describe("streams and questions that ask the agent for nothing", () => {
  test("the stream that a client of MCP keeps open is none of the messages being served", async () => {
    const token = await idp.token({ claims: { sub: "listener" } });
    const client = await RawClient.connect(proxy.reverse);
    agent.answer = ({ connection }) => {
      void connection.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
      );
    };
    client.send(
      `GET /mcp HTTP/1.1\r\nHost: agent.test\r\nMcp-Session-Id: m-1\r\nAuthorization: Bearer ${token}\r\n\r\n`,
    );
    await client.head();
    const message = await say("one", { context: "ctx-1" });
    expect(await act()).toContain('"result"');
    await message.answer();
    client.socket.destroy();
    expect(words()).toEqual(['"one"']);
  });

  test("a client that asks how its task is doing asks for nothing to be done", async () => {
    const message = await say("one", { context: "ctx-1" });
    const poll = await say("", { user: "other", method: "tasks/get", params: { id: "task-9" } });
    expect(await act()).toContain('"result"');
    await Promise.all([message.answer(), poll.answer({ jsonrpc: "2.0", id: 1, result: {} })]);
    expect(words()).toEqual(['"one"']);
  });

  test("message/stream and tasks/resubscribe are messages until their last event", async () => {
    const streaming = await say("one", { context: "ctx-1", method: "message/stream" });
    expect(await act()).toContain('"result"');
    const again = await say("", {
      user: "other",
      method: "tasks/resubscribe",
      params: { id: "task-9" },
    });
    expect(await act()).toContain("ibac.no_session");
    await again.answer({ jsonrpc: "2.0", id: 1, result: {} });
    expect(await act()).toContain('"result"');
    await streaming.answer();
    expect(words().every((text) => text === '"one"')).toBe(true);
  });
});
