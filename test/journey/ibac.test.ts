/** examples/judged-sidecar at work: the SDK of A2A in front, tools and models behind, a judge that speaks OpenAI's API. */
import { readFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { ClientFactory } from "@a2a-js/sdk/client";
import { fetch, ProxyAgent } from "undici";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { agentCard, userMessage, WeatherAgent } from "../support/a2a-agent.ts";
import { StandInJudge } from "../support/judge.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { allEvents, eventOf } from "../support/session-events.ts";

const own = owner();
let judge: StandInJudge;
let agent: WeatherAgent;
let tools: HttpOrigin;
let llm: HttpOrigin;
let proxy: ProxyProcess;
let outbound: ProxyAgent;

beforeAll(async () => {
  judge = await own(StandInJudge.start());
  agent = await own(WeatherAgent.start());
  tools = await own(HttpOrigin.launch());
  llm = await own(HttpOrigin.launch());
});

/** A process of its own for each test: sessions are remembered. */
beforeEach(async () => {
  judge.forget();
  tools.requests.length = 0;
  judge.decide = (question) => {
    const { content = "" } = question.messages.at(-1) ?? {};
    const isWeather = /weather/i.test(content.split("\n")[1] ?? "");
    const isAligned = isWeather && content.includes("api.weather.gov");
    return isAligned
      ? '{"verdict":"allow","reason":"it reads the weather"}'
      : '{"verdict":"deny","reason":"not what the user asked for"}';
  };
  tools.answer = ({ text }) => {
    const { id } = JSON.parse(text) as { id: number };
    const body = { jsonrpc: "2.0", id, result: { content: [{ type: "text", text: "ok" }] } };
    return reply(200, JSON.stringify(body), { "Content-Type": "application/json" });
  };
  llm.answer = () =>
    reply(
      200,
      JSON.stringify({
        choices: [{ message: { content: "use fetch_url" }, finish_reason: "stop" }],
        usage: { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 },
      }),
      { "Content-Type": "application/json" },
    );
  const config = await readFile("examples/judged-sidecar/config.yaml", "utf8");
  proxy = await own(
    ProxyProcess.start(config, {
      env: {
        INBOUND_PORT: "0",
        OUTBOUND_PORT: "0",
        AGENT_URL: agent.url,
        JUDGE_URL: judge.url,
        TOOLS_PORT: String(tools.port),
        LLM_PORT: String(llm.port),
      },
    }),
  );
  outbound = new ProxyAgent(`http://127.0.0.1:${proxy.forward.port}`);
});
afterEach(async () => {
  agent.work = async () => undefined;
  await outbound.close();
});

interface Outcome {
  readonly status: number;
  readonly text: string;
}

async function send(
  url: string,
  body: object,
  headers: Record<string, string> = {},
): Promise<Outcome> {
  const answer = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
    dispatcher: outbound,
  });
  return { status: answer.status, text: await answer.text() };
}

const rpc = (method: string, params: object = {}) => ({ jsonrpc: "2.0", id: 7, method, params });
const fetchUrl = (url: string, headers: Record<string, string> = {}): Promise<Outcome> =>
  send(
    `http://tools.example.test:${tools.port}/mcp`,
    rpc("tools/call", { name: "fetch_url", arguments: { url } }),
    headers,
  );

/** The user says something; the agent does `work` while it answers. */
async function ask(
  text: string,
  work: (headers: IncomingMessage["headers"]) => Promise<void>,
): Promise<void> {
  const base = `http://127.0.0.1:${proxy.reverse.port}`;
  const client = await new ClientFactory().createFromAgentCard(agentCard(base));
  agent.work = work;
  await client.sendMessage(userMessage(text));
}

/** Whoever comes waits until so many are there. */
function meetingOf(size: number): () => Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let there = 0;
  return async () => {
    there += 1;
    if (there === size) resolve();
    await promise;
  };
}

const read = async (path: string): Promise<string> => (await proxy.sessions(path)).text;

describe("one user", () => {
  test("P12: what serves the user's words passes, what does not is an error that a model reads", async () => {
    const outcomes: Outcome[] = [];
    await ask("What is the weather in Bern?", async () => {
      const listed = rpc("tools/list");
      outcomes.push(await send(`http://tools.example.test:${tools.port}/mcp`, listed));
      outcomes.push(await fetchUrl("https://api.weather.gov"));
      outcomes.push(await fetchUrl("https://malicious.com", { "X-IBAC-Judge": "1" }));
    });
    const [list, good, bad] = outcomes;
    expect(list?.status).toBe(200);
    expect(good?.text).toContain('"ok"');
    expect(bad?.status).toBe(200);
    expect(JSON.parse(bad?.text ?? "")).toMatchObject({
      jsonrpc: "2.0",
      id: 7,
      error: {
        code: -32_000,
        message: "not what the user asked for",
        data: { error: "ibac.blocked", plugin: "ibac" },
      },
    });
    expect(judge.requests).toHaveLength(2);
    expect(tools.requests.map(({ text }) => text).join()).not.toContain("malicious");
    const denied = await eventOf(read, (event) => event.phase === "denied");
    expect(denied).toMatchObject({
      error: { kind: "policy", code: "ibac.blocked" },
      mcp: { method: "tools/call", params: { name: "fetch_url" } },
    });
    expect(denied.invocations?.["outbound"]).toContainEqual(
      expect.objectContaining({ plugin: "ibac", action: "deny", reason: "blocked" }),
    );
  });

  test("Z11: a batch with one such call in it is refused whole", async () => {
    let outcome: Outcome | undefined;
    await ask("What is the weather?", async () => {
      outcome = await send(`http://tools.example.test:${tools.port}/mcp`, [
        rpc("tools/list"),
        rpc("tools/call", { name: "fetch_url", arguments: { url: "https://malicious.com" } }),
      ]);
    });
    expect(outcome?.text).toContain("ibac.blocked");
    expect(tools.requests).toHaveLength(0);
  });

  test("P15: the agent's own model is recorded and not judged; another host is not reached", async () => {
    const call = { model: "m", messages: [{ role: "user", content: "which tool?" }] };
    const path = "v1/chat/completions";
    let other: Outcome | undefined;
    await ask("What is the weather?", async () => {
      await send(`http://llm.example.test:${llm.port}/${path}`, call);
      other = await send(`http://elsewhere.example.test:${llm.port}/${path}`, call);
    });
    expect(other?.status).toBe(403);
    expect(judge.requests).toHaveLength(0);
    const event = await eventOf(
      read,
      (one) => one.phase === "response" && one.inference !== undefined,
    );
    expect(event.inference).toMatchObject({
      model: "m",
      completion: "use fetch_url",
      totalTokens: 7,
    });
  });

  test("P13: a judge that is down refuses the action, and the reason does not name the judge", async () => {
    judge.answer = () => reply(500, "secret of the judge");
    let outcome: Outcome | undefined;
    await ask("What is the weather?", async () => {
      outcome = await fetchUrl("https://api.weather.gov");
    });
    expect(outcome?.text).toContain("ibac.judge_unavailable");
    expect(outcome?.text).not.toMatch(/secret|127\.0\.0\.1/);
    expect(tools.requests).toHaveLength(0);
    // Nobody was refused: the judge is to blame, whatever the status that the model's client is shown.
    expect(await proxy.metric("authbridge_flows_total", { outcome: "unavailable" })).toBe(1);
    expect(await proxy.metric("authbridge_flows_total", { outcome: "denied" })).toBe(0);
  });

  test("P14: an action that nobody asked for is refused", async () => {
    expect((await fetchUrl("https://api.weather.gov")).text).toContain("ibac.no_session");
    expect(judge.requests).toHaveLength(0);
  });
});

describe("users one after the other, and an agent that passes nothing on", () => {
  test("each action is judged against the words of the one who is being served, and is in that session", async () => {
    const outcomes: Record<string, Outcome> = {};
    const say = async (who: string, text: string): Promise<void> => {
      const base = `http://127.0.0.1:${proxy.reverse.port}`;
      const client = await new ClientFactory().createFromAgentCard(agentCard(base));
      agent.work = async () => {
        outcomes[who] = await fetchUrl("https://api.weather.gov");
      };
      await client.sendMessage(userMessage(text, `ctx-${who}`));
      await eventOf(read, ({ sessionId, direction, phase }) => {
        return sessionId === `ctx-${who}` && direction === "inbound" && phase === "response";
      });
    };
    await say("ann", "What is the weather?");
    await say("ben", "Tidy my calendar.");
    await say("cat", "And the weather in Bern?");
    expect(outcomes["ann"]?.text).toContain('"ok"');
    expect(outcomes["ben"]?.text).toContain("ibac.blocked");
    expect(outcomes["cat"]?.text).toContain('"ok"');
    const acted = (await allEvents(read)).filter(({ mcp }) => mcp !== undefined);
    expect(acted.map(({ sessionId, phase }) => [sessionId, phase])).toEqual([
      ["ctx-cat", "request"],
      ["ctx-cat", "response"],
      ["ctx-ben", "denied"],
      ["ctx-ann", "request"],
      ["ctx-ann", "response"],
    ]);
    // Nobody is served any more, and three have asked for something.
    expect((await fetchUrl("https://api.weather.gov")).text).toContain("ibac.no_session");
  });
});

describe("two users at once", () => {
  /** Both messages are being answered until the agent has acted for both. */
  async function together(
    act: (who: "ann" | "ben", headers: IncomingMessage["headers"]) => Promise<void>,
  ): Promise<void> {
    const base = `http://127.0.0.1:${proxy.reverse.port}`;
    const client = await new ClientFactory().createFromAgentCard(agentCard(base));
    const met = meetingOf(2);
    const done = meetingOf(2);
    agent.work = async (headers) => {
      await met();
      await act(headers["x-who"] === "ann" ? "ann" : "ben", headers);
      await done();
    };
    const say = (who: string, text: string) =>
      client.sendMessage(userMessage(text, `ctx-${who}`), { serviceParameters: { "x-who": who } });
    await Promise.all([say("ann", "What is the weather?"), say("ben", "Tidy my calendar.")]);
  }

  test("Z9: tied by what the agent passes on, each action is judged against its own user's words", async () => {
    const outcomes: Record<string, Outcome> = {};
    await together(async (who, headers) => {
      const traceparent = String(headers["traceparent"]);
      outcomes[who] = await fetchUrl("https://api.weather.gov", { traceparent });
    });
    expect(outcomes["ann"]?.text).toContain('"ok"');
    expect(outcomes["ben"]?.text).toContain("ibac.blocked");
    const intents = judge.questions.map(({ messages }) => messages.at(-1)?.content.split("\n")[1]);
    expect(new Set(intents)).toEqual(new Set(['"Tidy my calendar."', '"What is the weather?"']));
    await eventOf(read, (event) => event.phase === "response" && event.mcp !== undefined);
    const acted = (await allEvents(read)).filter(({ mcp }) => mcp !== undefined);
    for (const { sessionId, phase } of acted) {
      expect(sessionId).toBe(phase === "denied" ? "ctx-ben" : "ctx-ann");
    }
  });

  test("Z9: tied by nothing, the action is refused: nobody is asked and nobody guesses", async () => {
    const outcomes: Outcome[] = [];
    await together(async () => {
      outcomes.push(await fetchUrl("https://api.weather.gov"));
    });
    for (const { text } of outcomes) {
      expect(text).toContain("ibac.no_session");
      expect(text).toContain("session.header");
    }
    expect(judge.requests).toHaveLength(0);
  });
});
