/** The Go terminal viewer's requests get the answers that it can decode (contract 7). */
import { readFileSync } from "node:fs";
import { get, type IncomingMessage } from "node:http";
import { beforeAll, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { type GoType, mismatches } from "../support/go-decoder.ts";
import { openTunnel, request } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";
import { a2aMessage, ask, SessionAgent } from "../support/session-agent.ts";

interface Recorded {
  readonly to: "sessions" | "stats";
  readonly path: string;
  readonly accept?: string;
  readonly status: number;
  readonly type?: string;
}

const { types, requests } = JSON.parse(
  readFileSync(new URL("../golden/viewer/transcript.json", import.meta.url), "utf8"),
) as { types: Record<string, GoType>; requests: Recorded[] };

const own = owner();
let proxy: ProxyProcess;
let agent: SessionAgent;
let token: string;
let provider: HttpOrigin;

const json = { "Content-Type": "application/json" };

const completion = {
  model: "m",
  choices: [
    {
      message: {
        role: "assistant",
        content: "hi",
        tool_calls: [{ id: "c", type: "function", function: { name: "f", arguments: "{}" } }],
      },
      finish_reason: "tool_calls",
    },
  ],
  usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 },
};

/** One of everything that an event can show. */
async function traffic(): Promise<void> {
  const headers = { ...json, Authorization: `Bearer ${token}` };
  await ask(proxy.reverse, "/", {
    method: "POST",
    headers,
    body: a2aMessage("alice 0", "ctx/odd id"),
  });
  await ask(proxy.reverse, "/", { method: "POST", headers: json, body: a2aMessage("nobody 0") });
  const post = (path: string, body: object): Promise<unknown> =>
    ask(proxy.forward, `${provider.url}${path}`, {
      method: "POST",
      headers: json,
      body: JSON.stringify(body),
    });
  await post("/mcp", {
    jsonrpc: "2.0",
    id: "a",
    method: "tools/call",
    params: { name: "t", arguments: { n: 1 } },
  });
  const messages = [
    { role: "system", content: "s" },
    { role: "user", content: [{ type: "text", text: "u" }] },
  ];
  const tools = [
    { type: "function", function: { name: "f", description: "d", parameters: { type: "object" } } },
  ];
  await post("/v1/chat/completions", {
    model: "m",
    messages,
    tools,
    max_tokens: 9,
    temperature: 0.5,
    stream: false,
  });
  await request(proxy.forward, { target: "http://refused.test/x" });
  const tunnel = await openTunnel(proxy.forward, provider.authority);
  tunnel.client.socket.destroy();
}

beforeAll(async () => {
  const idp = await own(StubIdp.start());
  agent = await own(SessionAgent.start());
  provider = await own(HttpOrigin.launch());
  provider.on("/mcp", () =>
    reply(200, '{"jsonrpc":"2.0","id":"a","error":{"code":-32602,"message":"bad","data":1}}', json),
  );
  provider.on("/v1/chat/completions", () => reply(200, JSON.stringify(completion), json));
  const jwt = { name: "jwt-validation", config: { issuer: idp.issuer, audience: "agent" } };
  const policy = { name: "egress-policy", config: { allow: ["127.0.0.1"] } };
  proxy = await own(
    ProxyProcess.start(
      settings({
        listener: { reverse_proxy_backend: agent.url },
        pipeline: {
          inbound: { plugins: [jwt, "a2a-parser"] },
          outbound: { plugins: [policy, "mcp-parser", "inference-parser"] },
        },
      }),
    ),
  );
  token = await idp.token();
  await traffic();
});

/** As Go's client sends it; the text grows while the answer comes. */
async function sent({
  to,
  path,
  accept,
}: Recorded): Promise<{ response: IncomingMessage; text: () => string }> {
  const address = proxy.address(to);
  const headers = {
    Host: `localhost:${address.port}`,
    "User-Agent": "Go-http-client/1.1",
    ...(accept === undefined ? {} : { Accept: accept }),
    "Accept-Encoding": "gzip",
  };
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get({ ...address, path, headers, agent: false }, resolve).on("error", reject);
  });
  let text = "";
  response.on("data", (chunk: Buffer) => (text += chunk.toString()));
  return { response, text: () => text };
}

for (const recorded of requests) {
  const { path, type, status, accept } = recorded;
  test(`${path} is ${type ?? status}`, async () => {
    const { response, text } = await sent(recorded);
    expect(response.statusCode).toBe(status);
    expect(response.headers["content-encoding"]).toBeUndefined();
    if (accept !== undefined) await traffic();
    const isThere = (): boolean =>
      accept === undefined ? response.readableEnded : framesOf(text()).length > 1;
    await eventually(isThere);
    const values = accept === undefined ? [JSON.parse(text()) as unknown] : framesOf(text());
    response.destroy();
    if (type === undefined) return;
    for (const value of values) expect(mismatches(value, type, types)).toEqual([]);
  });
}

test("the transcript is checked against events of every kind", async () => {
  const all = await Promise.all(
    ["default", "ctx%2Fodd%20id"].map(async (id) => {
      const { events } = (await proxy.sessions(`/v1/sessions/${id}`)).json() as {
        events: Record<string, unknown>[];
      };
      return events;
    }),
  );
  const events = all.flat();
  const keys = new Set(events.flatMap((event) => Object.keys(event)));
  for (const key of [
    "a2a",
    "mcp",
    "inference",
    "invocations",
    "identity",
    "error",
    "tunnel",
    "durationMs",
    "statusCode",
  ]) {
    expect(keys).toContain(key);
  }
  expect(new Set(events.map((event) => event["phase"]))).toEqual(
    new Set(["request", "response", "denied"]),
  );
});

test("events say what was an action, what an origin refused, and the host as clients write it", async () => {
  const port = new URL(provider.url).port;
  const post = async (path: string, body: object): Promise<void> => {
    await ask(proxy.forward, `${provider.url}${path}`, {
      method: "POST",
      headers: json,
      body: JSON.stringify(body),
    });
  };
  provider.on("/missing", () => reply(404, "{}", json));
  provider.on("/broken", () => reply(503, "{}", json));
  await post("/missing", { jsonrpc: "2.0", id: 1, method: "tools/list" });
  await post("/broken", { a: 1 });
  await request(proxy.forward, { target: "http://refused.test/x" });
  const { events } = (await proxy.sessions("/v1/sessions/default")).json() as {
    events: {
      readonly phase: string;
      readonly host: string;
      readonly httpPath: string;
      readonly error?: unknown;
      readonly mcp?: { readonly method: string; readonly isAction?: boolean };
      readonly inference?: { readonly isAction?: boolean };
    }[];
  };
  const of = (path: string, phase: string) =>
    events.findLast((event) => event.httpPath === path && event.phase === phase);
  expect(of("/missing", "request")?.error).toBeUndefined();
  expect(of("/missing", "response")?.error).toEqual({ kind: "backend_error", code: "404" });
  expect(of("/broken", "response")?.error).toEqual({ kind: "backend_error", code: "503" });
  expect(of("/mcp", "response")?.error).toBeUndefined();
  for (const phase of ["request", "response"]) {
    expect(of("/mcp", phase)?.mcp).toMatchObject({ method: "tools/call", isAction: true });
    expect(of("/missing", phase)?.mcp?.isAction ?? false).toBe(false);
    expect(of("/v1/chat/completions", phase)?.inference?.isAction).toBe(true);
    expect(of("/mcp", phase)?.host).toBe(`127.0.0.1:${port}`);
  }
  // The default port of the scheme is not written, as in a Host field.
  expect(of("/x", "denied")?.host).toBe("refused.test");
  const conversation = (await proxy.sessions("/v1/sessions/ctx%2Fodd%20id")).json() as {
    events: { readonly a2a?: { readonly isAction?: boolean } }[];
  };
  expect(conversation.events.every(({ a2a }) => a2a?.isAction === true)).toBe(true);
  expect(conversation.events.length).toBeGreaterThan(1);
});

/** The data of a stream's events. */
function framesOf(text: string): unknown[] {
  return [...text.matchAll(/^data: (\{.*\})$/gm)].map(
    ([, data = ""]) => JSON.parse(data) as unknown,
  );
}
