/** Both roles in several threads: what comes through one is known where the agent's calls come through another. */
import { fileURLToPath } from "node:url";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { type RawResponse, request } from "../support/http-client.ts";
import { StandInJudge } from "../support/judge.ts";
import { HttpOrigin, type RecordedRequest, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";
import { a2aMessage } from "../support/session-agent.ts";
import { allEvents, type SeenEvent } from "../support/session-events.ts";

const own = owner();
const threadPlugins = fileURLToPath(new URL("../support/thread-plugins.ts", import.meta.url));
const json = { "Content-Type": "application/json" };
let agent: HttpOrigin;
let tools: HttpOrigin;
let judge: StandInJudge;
let proxy: ProxyProcess;
/** What the agent does before it answers. */
let work: (asked: RecordedRequest, words: string) => Promise<unknown>;

interface Message {
  readonly contextId?: string;
  readonly parts: readonly { readonly text: string }[];
}

beforeAll(async () => {
  judge = await own(StandInJudge.start());
  tools = await own(
    HttpOrigin.launch(() => reply(200, '{"jsonrpc":"2.0","id":7,"result":{}}', json)),
  );
  agent = await own(HttpOrigin.launch());
  agent.answer = async (asked) => {
    const { message } = (JSON.parse(asked.text) as { params: { message: Message } }).params;
    const words = message.parts[0]?.text ?? "";
    await work(asked, words);
    const { contextId = `ctx of ${words}` } = message;
    const result = { kind: "message", contextId, parts: [] };
    return reply(200, JSON.stringify({ jsonrpc: "2.0", id: 1, result }), json);
  };
});

function file(over: Settings = {}): Settings {
  const base = settings({
    plugin_modules: [threadPlugins],
    workers: 2,
    session: { max_sessions: 1_000 },
    listener: { reverse_proxy_backend: agent.url },
    pipeline: {
      inbound: { plugins: ["a2a-parser"] },
      outbound: {
        plugins: [
          "mcp-parser",
          { name: "ibac", config: { judge_endpoint: judge.url, judge_model: "m" } },
          "thread",
        ],
      },
    },
  });
  return merge(base, over);
}

beforeEach(async () => {
  judge.forget();
  work = () => Promise.resolve();
  proxy = await own(ProxyProcess.start(file()));
});

/** A user says something; each message has a connection of its own. */
const say = (text: string, contextId?: string): Promise<RawResponse> =>
  request(proxy.reverse, {
    method: "POST",
    target: "/",
    headers: { Host: "agent.test", Connection: "close", ...json },
    body: a2aMessage(text, contextId),
  });

/** The agent calls a tool with its own word for what it does. */
const act = async (word: string, headers: Readonly<Record<string, string>> = {}): Promise<string> =>
  (
    await request(proxy.forward, {
      method: "POST",
      target: `${tools.url}/pass`,
      headers: { Host: tools.authority, Connection: "close", ...json, ...headers },
      body: JSON.stringify({ jsonrpc: "2.0", id: 7, method: "tools/call", params: { name: word } }),
    })
  ).text;

const traceOf = (asked: RecordedRequest): Record<string, string> => ({
  traceparent: asked.header("traceparent") ?? "",
});

/** What the judge was shown: whose words, and which action. */
const judged = (): (readonly [words: string, action: string])[] =>
  judge.questions.map(({ messages }) => {
    const content = messages.at(-1)?.content ?? "";
    return [/word-\w+/.exec(content.split("\n")[1] ?? "")?.[0] ?? "", wordIn(content)] as const;
  });

const wordIn = (content: string): string =>
  /word-\w+/.exec(content.slice(content.indexOf("PROPOSED_ACTION:")))?.[0] ?? "";

const mixedUp = (): (readonly [string, string])[] =>
  judged().filter(([words, action]) => words !== action);

const events = (): Promise<readonly SeenEvent[]> =>
  allEvents(async (path) => (await proxy.sessions(path)).text);

/** The thread in the id of a flow. */
const threadOf = (requestId = ""): string => /t(\d+)-/.exec(requestId)?.[1] ?? "";

describe("a hundred users at once", () => {
  const users = Array.from({ length: 100 }, (_, index) => `word-${index}`);

  test("what the agent ties is judged by the words of whom it acts for, whichever threads serve them", async () => {
    work = async (asked, words) => {
      expect(await act(words, traceOf(asked))).toContain('"result"');
    };
    const answers = await Promise.all(users.map((word) => say(word, `ctx-${word}`)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(judge.requests).toHaveLength(users.length);
    expect(mixedUp()).toEqual([]);
    const seen = await eventually(async () => {
      const found = await events();
      return found.length === users.length * 4 && found;
    });
    const threads = new Map<string, Set<string>>();
    for (const { sessionId, requestId } of seen) {
      const known = threads.get(sessionId) ?? new Set();
      threads.set(sessionId, known.add(threadOf(requestId)));
    }
    expect([...threads.keys()].sort()).toEqual(users.map((word) => `ctx-${word}`).sort());
    expect([...threads.values()].some(({ size }) => size === 2)).toBe(true);
  });

  test("what it does not tie is nobody's while several are served, and nobody is asked", async () => {
    const all = Promise.withResolvers<void>();
    let served = 0;
    const texts: string[] = [];
    work = async (_asked, words) => {
      served += 1;
      if (served === users.length) all.resolve();
      await all.promise;
      texts.push(await act(words));
      // Nobody is answered before the last one has acted.
      await eventually(() => texts.length === users.length);
    };
    await Promise.all(users.map((word) => say(word, `ctx-${word}`)));
    expect(texts.filter((text) => !text.includes("ibac.no_session"))).toEqual([]);
    expect(judge.requests).toHaveLength(0);
  });

  test("whatever they do and whenever they come, no action is judged by another's words", async () => {
    work = async (asked, words) => {
      const index = Number(words.slice(5));
      await act(words, index % 3 === 0 ? {} : traceOf(asked));
      if (index % 2 === 0) await act(words, traceOf(asked));
    };
    await Promise.all(users.map((word, index) => say(word, index % 4 === 0 ? undefined : word)));
    expect(mixedUp()).toEqual([]);
    // What is asked twice is remembered.
    expect(judged().length).toBeGreaterThan(users.length / 2);
  });
});

describe("one after the other", () => {
  test("each action that nothing ties is judged by the words of the one who is being served", async () => {
    const texts: string[] = [];
    work = async (_asked, words) => {
      texts.push(await act(words));
    };
    const words = Array.from({ length: 40 }, (_, index) => `word-${index}`);
    for (const word of words) await say(word, `ctx-${word}`);
    expect(texts.filter((text) => !text.includes('"result"'))).toEqual([]);
    expect(judged()).toEqual(words.map((word) => [word, word]));
    expect(await act("word-late")).toContain("ibac.no_session");
  });

  test("what follows from a conversation without a name yet is in it when it has got one", async () => {
    work = async (asked, words) => {
      await act(words, traceOf(asked));
    };
    const words = Array.from({ length: 10 }, (_, index) => `word-${index}`);
    for (const word of words) await say(word);
    const seen = await eventually(async () => {
      const found = await events();
      return found.length === words.length * 4 && found;
    });
    const counts = Map.groupBy(seen, ({ sessionId }) => sessionId);
    expect([...counts].map(([id, found]) => [id, found.length])).toEqual(
      expect.arrayContaining(words.map((word) => [`ctx of ${word}`, 4])),
    );
  });

  test("a session of MCP belongs to the conversation in which it began, in every thread", async () => {
    const began = new Map<string, string>();
    tools.answer = ({ text }) => {
      const { method, params } = JSON.parse(text) as { method: string; params: { name: string } };
      const session = `mcp-${params.name}`;
      if (method !== "initialize") return reply(200, '{"jsonrpc":"2.0","id":7,"result":{}}', json);
      began.set(params.name, session);
      return reply(200, '{"jsonrpc":"2.0","id":7,"result":{}}', {
        ...json,
        "Mcp-Session-Id": session,
      });
    };
    work = async (asked, words) => {
      await request(proxy.forward, {
        method: "POST",
        target: `${tools.url}/pass`,
        headers: { Host: tools.authority, Connection: "close", ...json, ...traceOf(asked) },
        body: JSON.stringify({
          jsonrpc: "2.0",
          id: 7,
          method: "initialize",
          params: { name: words },
        }),
      });
    };
    const words = Array.from({ length: 10 }, (_, index) => `word-${index}`);
    for (const word of words) await say(word, `ctx-${word}`);
    const other = Promise.withResolvers<void>();
    work = () => other.promise;
    const served = say("word-other", "ctx-other");
    await eventually(() => agent.requests.at(-1)?.text.includes("word-other") === true);
    for (const word of words)
      expect(await act(word, { "Mcp-Session-Id": `mcp-${word}` })).toContain('"result"');
    other.resolve();
    await served;
    expect(judged()).toEqual(words.map((word) => [word, word]));
  });
});

describe("in the middle", () => {
  /** The message that the agent has and has not answered. */
  async function held(word: string): Promise<{
    readonly asked: RecordedRequest;
    readonly over: Promise<RawResponse | undefined>;
    answer(): void;
  }> {
    const gate = Promise.withResolvers<void>();
    const came = Promise.withResolvers<RecordedRequest>();
    work = (asked) => {
      came.resolve(asked);
      return gate.promise;
    };
    const over = say(word, `ctx-${word}`).catch(() => undefined);
    return { asked: await came.promise, over, answer: () => gate.resolve() };
  }

  test("a reload changes nothing about whose words count", async () => {
    const first = await held("word-first");
    await proxy.reload(file({ session: { max_sessions: 1_000 }, limits: { max_body: "2MiB" } }));
    expect(await act("word-first")).toContain('"result"');
    const second = await held("word-second");
    expect(await act("word-second")).toContain("ibac.no_session");
    expect(await act("word-second", traceOf(second.asked))).toContain('"result"');
    first.answer();
    await first.over;
    expect(await act("word-second")).toContain('"result"');
    second.answer();
    await second.over;
    expect(mixedUp()).toEqual([]);
  });

  test("a thread that ends: what the agent goes on to do for its users is not judged by another's words", async () => {
    const first = await held("word-first");
    const seen = await eventually(async () => {
      const found = (await events()).find(({ direction }) => direction === "inbound");
      return found ?? false;
    });
    const thread = threadOf(seen.requestId);
    await eventually(async () => {
      const target = `http://thread.test/exit/${thread}`;
      await request(proxy.forward, { target, headers: { Host: "thread.test" } }).catch(
        () => undefined,
      );
      return proxy.logs.some(({ msg }) => msg.startsWith("a thread has ended"));
    });
    expect(await first.over).toBeUndefined();
    await proxy.log(({ msg }) => msg.startsWith("a thread serves in place"));
    const second = await held("word-second");
    for (let count = 0; count < 8; count += 1)
      expect(await act("word-first")).toContain("ibac.no_session");
    expect(judge.requests).toHaveLength(0);
    expect(await act("word-first", traceOf(first.asked))).toContain('"result"');
    expect(await act("word-second", traceOf(second.asked))).toContain('"result"');
    second.answer();
    await second.over;
    expect(judged()).toEqual([
      ["word-first", "word-first"],
      ["word-second", "word-second"],
    ]);
  });
});
