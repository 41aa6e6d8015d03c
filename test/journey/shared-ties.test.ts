/** Ties of messages to conversations and users in the store of `state`: what follows goes through any replica. */
import { randomBytes, randomUUID } from "node:crypto";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type RawResponse, request } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { StandInJudge } from "../support/judge.ts";
import { HttpOrigin, type RecordedRequest, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";
import { a2aMessage } from "../support/session-agent.ts";

const own = owner();
const json = { "Content-Type": "application/json" };
let agent: HttpOrigin;
let tools: HttpOrigin;
let judge: StandInJudge;
let idp: StubIdp;
/** What the agent does while it answers. */
let work: (request: RecordedRequest) => Promise<void>;

beforeAll(async () => {
  agent = await own(HttpOrigin.launch());
  tools = await own(HttpOrigin.launch());
  judge = await own(StandInJudge.start());
  idp = await own(StubIdp.start());
  agent.answer = async (asked) => {
    await work(asked);
    const { params } = JSON.parse(asked.text) as { params: { message: { contextId?: string } } };
    const { contextId = "ctx" } = params.message;
    const result = { kind: "task", id: "t", contextId, status: { state: "completed" } };
    return reply(200, JSON.stringify({ jsonrpc: "2.0", id: 1, result }), json);
  };
  tools.answer = ({ text }) => {
    const { method, id } = JSON.parse(text) as { method: string; id: number };
    const isFirst = method === "initialize";
    return reply(200, JSON.stringify({ jsonrpc: "2.0", id, result: {} }), {
      ...json,
      ...(isFirst ? { "Mcp-Session-Id": `mcp-${randomUUID()}` } : {}),
    });
  };
});

beforeEach(() => {
  judge.forget();
  work = () => Promise.resolve();
});

function file(state: Settings, session: Settings = {}): Settings {
  const validation = { issuer: idp.issuer, audience: "agent" };
  const ibac = { judge_endpoint: judge.url, judge_model: "m" };
  const limit = { name: "each", unit: "requests", limit: 3, window: "day", by: ["subject"] };
  return settings({
    state,
    session,
    listener: { reverse_proxy_backend: agent.url },
    egress: { hosts: { "tools.test": ["127.0.0.1"] } },
    pipeline: {
      inbound: { plugins: [{ name: "jwt-validation", config: validation }, "a2a-parser"] },
      outbound: {
        default: "deny",
        plugins: [
          "mcp-parser",
          { name: "egress-policy", config: { allow: [`tools.test:${tools.port}`] } },
          { name: "ibac", config: ibac },
          { name: "budgets", config: { limits: [limit], when_away: "allow" } },
        ],
      },
    },
  });
}

/** A user says something to the agent; resolves with the agent's answer. */
async function say(
  proxy: ProxyProcess,
  user: string,
  text: string,
  contextId?: string,
): Promise<RawResponse> {
  const token = await idp.token({ claims: { sub: user } });
  return request(proxy.reverse, {
    method: "POST",
    target: "/",
    headers: { Authorization: `Bearer ${token}`, ...json },
    body: a2aMessage(text, contextId),
  });
}

const callTool = (
  proxy: ProxyProcess,
  headers: Readonly<Record<string, string>>,
  method = "tools/call",
): Promise<RawResponse> =>
  request(proxy.forward, {
    method: "POST",
    target: `http://tools.test:${tools.port}/mcp`,
    headers: { ...headers, ...json },
    body: JSON.stringify({ jsonrpc: "2.0", id: 7, method, params: { name: "look-up" } }),
  });

const traceOf = (asked: RecordedRequest): Record<string, string> => ({
  traceparent: asked.header("traceparent") ?? "",
});

/** What the judge was told that the user asked. */
const intents = (): string[] =>
  judge.questions.map(({ messages }) => (messages.at(-1)?.content ?? "").split("\n")[1] ?? "");

async function eventsAt(proxy: ProxyProcess, session: string): Promise<string[]> {
  const found = await proxy.sessions(`/v1/sessions/${session}`);
  if (found.status !== 200) return [];
  const { events } = found.json() as { events: { direction: string }[] };
  return events.map(({ direction }) => direction);
}

describe.skipIf(!hasRedis)("replicas on one server", () => {
  async function two(session: Settings = {}) {
    const redis = await own(RedisServer.start());
    const state = {
      store: "redis",
      url: redis.url,
      timeout: "5s",
      encryption_key_file: "keys",
    };
    const files = { keys: randomBytes(32).toString("base64") };
    const start = (): Promise<ProxyProcess> =>
      own(ProxyProcess.start(file(state, session), { files }));
    const [one, other] = await Promise.all([start(), start()]);
    return { redis, one, other };
  }

  test("what the agent sends through another one is of the same conversation, user and intent", async () => {
    const { redis, one, other } = await two();
    const statuses: number[] = [];
    work = async (asked) => {
      statuses.push((await callTool(other, traceOf(asked))).status);
    };
    await say(one, "alice", "read the weather", "ctx-alice");
    await say(one, "bob", "write a poem", "ctx-bob");
    expect(statuses).toEqual([200, 200]);
    expect(intents()).toEqual([
      expect.stringContaining("read the weather"),
      expect.stringContaining("write a poem"),
    ]);
    expect(await eventsAt(other, "ctx-alice")).toContain("outbound");
    expect(await eventsAt(other, "ctx-bob")).toContain("outbound");
    const found = await redis.command("EVAL \"return redis.call('KEYS','*tie:*')[1]\" 0");
    const kept = await redis.command(`GET ${found.split("\r\n")[1] ?? ""}`);
    expect(kept).toContain("s1.");
    expect(await other.metric("authbridge_session_ties_total", { result: "found" })).toBe(2);
  });

  test("a user has one budget, whichever replica counts", async () => {
    const { one, other } = await two();
    const answers: string[] = [];
    for (const at of [0, 1, 2, 3]) {
      work = async (asked) => {
        answers.push((await callTool(at % 2 === 0 ? other : one, traceOf(asked))).text);
      };
      await say(at < 2 ? one : other, "carol", "read the weather", `ctx-${at}`);
    }
    work = async (asked) => {
      answers.push((await callTool(other, traceOf(asked))).text);
    };
    await say(one, "dave", "read the weather", "ctx-dave");
    // Of tools, the refusal is an error of JSON-RPC.
    expect(answers.map((text) => text.includes("is used up"))).toEqual(
      // Four of one user, then one of another.
      [false, false, false, true, false],
    );
  });

  test("a session of MCP belongs to its conversation, whichever replica its messages come to", async () => {
    const { one, other } = await two();
    let mcp = "";
    const answers: RawResponse[] = [];
    work = async (asked) => {
      const begun = await callTool(other, traceOf(asked), "initialize");
      mcp = begun.header("mcp-session-id") ?? "";
      // Without a trace: the session of MCP is all that ties it.
      answers.push(await callTool(one, { "Mcp-Session-Id": mcp }));
    };
    await say(one, "erin", "read the weather", "ctx-erin");
    work = async () => {
      answers.push(await callTool(other, { "Mcp-Session-Id": mcp }));
    };
    await say(other, "mallory", "delete everything", "ctx-mallory");
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
    expect(intents().every((intent) => intent.includes("read the weather"))).toBe(true);
    expect(await eventsAt(other, "ctx-erin")).toContain("outbound");
  });

  test.each(["refuse", "local"])("killed, with ties_when_away: %s", async (word) => {
    const { redis, one, other } = await two({ ties_when_away: word });
    const answers: RawResponse[] = [];
    work = async (asked) => {
      await redis.kill();
      await other.log(({ msg }) => msg === "the state store is away");
      answers.push(await callTool(other, traceOf(asked)));
    };
    await say(one, "frank", "read the weather", "ctx-frank");
    const [answer] = answers;
    if (word === "refuse") expect(answer?.text).toContain("nothing ties this request");
    else expect(answer?.text).toContain('"result"');
    expect(intents()).toEqual([]);
  });

  test("hung in the middle: what the agent sends is nobody's, and is known again when the store goes on", async () => {
    const { redis, one, other } = await two();
    const answers: RawResponse[] = [];
    work = async (asked) => {
      redis.hang();
      answers.push(await callTool(other, traceOf(asked)));
      redis.goOn();
      await other.log(({ msg }) => msg === "the state store is back");
      answers.push(await callTool(other, traceOf(asked)));
    };
    await say(one, "heidi", "read the weather", "ctx-heidi");
    expect(answers[0]?.text).toContain("nothing ties this request");
    expect(answers[1]?.text).toContain('"result"');
    expect(intents()).toHaveLength(1);
  });

  test("emptied in the middle: what follows is nobody's, and the next message is known again", async () => {
    const { redis, one, other } = await two();
    const statuses: number[] = [];
    work = async (asked) => {
      await redis.flush();
      statuses.push((await callTool(other, traceOf(asked))).status);
    };
    await say(one, "grace", "read the weather", "ctx-grace");
    expect(intents()).toEqual([]);
    work = async (asked) => {
      statuses.push((await callTool(other, traceOf(asked))).status);
    };
    await say(one, "grace", "read the weather", "ctx-grace");
    expect(intents()).toHaveLength(1);
  });
});
