/** The SDK of A2A through both proxies, in both revisions, and what a2a-parser recorded. */
import { ClientFactory, JsonRpcTransportFactory } from "@a2a-js/sdk/client";
import { LegacyJsonRpcTransport } from "@a2a-js/sdk/compat/v0_3/client";
import { fetch, ProxyAgent } from "undici";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { agentCard, userMessage, WeatherAgent } from "../support/a2a-agent.ts";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { owner } from "../support/owner.ts";
import { inbound, merge, ProxyProcess, settings } from "../support/proxy.ts";
import { allEvents, eventOf, type SeenEvent } from "../support/session-events.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const host = "api.allowed.test";
const own = owner();
let agent: WeatherAgent;
let origin: TlsOrigin;
let bridge: BridgeProxy;
let dispatcher: ProxyAgent;
let reverse: ProxyProcess;

beforeAll(async () => {
  agent = await own(WeatherAgent.start());
  const authority = await TestAuthority.create();
  origin = await TlsOrigin.start(await authority.server([host]), "both");
  for (const path of ["/a2a", "/a2a-legacy"]) {
    origin.on(path, (request, response) => agent.handle(request, response));
  }
  bridge = await BridgeProxy.start({
    ports: [origin.port],
    originCa: authority.caPem,
    plugins: ["mcp-parser", "a2a-parser"],
  });
  dispatcher = new ProxyAgent({ uri: bridge.url, requestTls: { ca: bridge.ca } });
  const file = merge(
    settings({ listener: { reverse_proxy_backend: agent.url, roles: ["reverse"] } }),
    inbound("a2a-parser"),
  );
  reverse = await own(ProxyProcess.start(file));
});
afterAll(async () => {
  await dispatcher.close();
  await bridge.close();
  await origin.close();
});

const proxied = ((url: string, options: object) =>
  fetch(url, { ...options, dispatcher })) as unknown as typeof globalThis.fetch;
/** A way to the agent: its client, and the session API of the proxy on that way. */
interface Way {
  readonly direction: "inbound" | "outbound";
  readonly base: string;
  readonly fetchImpl: typeof globalThis.fetch;
  read(path: string): Promise<string>;
}

const ways: readonly (() => Way)[] = [
  () => ({
    direction: "outbound",
    base: `https://${origin.at(host)}`,
    fetchImpl: proxied,
    read: async (path) => (await bridge.sessions(path)).text,
  }),
  () => ({
    direction: "inbound",
    base: `http://127.0.0.1:${reverse.reverse.port}`,
    fetchImpl: globalThis.fetch,
    read: async (path) => (await reverse.sessions(path)).text,
  }),
];

const wordsOf = (event: SeenEvent): unknown => {
  const parts = event.a2a?.["parts"];
  return Array.isArray(parts) ? (parts[0] as { content?: unknown })["content"] : undefined;
};

describe.each([["outbound, through the bridge", 0] as const, ["inbound", 1] as const])(
  "%s",
  (name, index) => {
    const way = (): Way => ways[index]?.() as Way;
    const connect = ({ base, fetchImpl }: Way) =>
      new ClientFactory({
        transports: [new JsonRpcTransportFactory({ fetchImpl })],
      }).createFromAgentCard(agentCard(base));

    test("a message of 1.0 and its task", async () => {
      const client = await connect(way());
      const said = `weather? ${name}`;
      const answer = await client.sendMessage(userMessage(said));
      expect(answer).toMatchObject({ contextId: expect.any(String) });
      const { contextId } = answer as { contextId: string };
      const event = await eventOf(
        (path) => way().read(path),
        (one) => one.phase === "response" && wordsOf(one) === said,
      );
      expect(event).toMatchObject({
        direction: way().direction,
        sessionId: contextId,
        a2a: {
          method: "message/send",
          role: "user",
          sessionId: contextId,
          finalStatus: "completed",
          artifact: "Sunny in Bern",
        },
      });
    });

    test("a stream of 1.0, in its own conversation from the request on", async () => {
      const client = await connect(way());
      const session = `ctx-${index}`;
      const said = `stream ${name}`;
      const kinds: string[] = [];
      for await (const event of client.sendMessageStream(userMessage(said, session))) {
        if (event.payload !== undefined) kinds.push(event.payload.$case);
      }
      expect(kinds).toContain("artifactUpdate");
      const read = (path: string) => way().read(path);
      await eventOf(read, (one) => one.phase === "response" && wordsOf(one) === said);
      const events = (await allEvents(read)).filter((one) => wordsOf(one) === said);
      expect(events.map(({ phase, sessionId }) => [phase, sessionId])).toEqual([
        ["request", session],
        ["response", session],
      ]);
      expect(events[0]?.a2a).not.toHaveProperty("artifact");
      expect(events[1]?.a2a).toMatchObject({
        method: "message/stream",
        artifact: "Sunny in Bern",
        finalStatus: "completed",
        taskId: expect.any(String),
      });
    });

    test("the same of 0.3", async () => {
      const { base, fetchImpl } = way();
      const client = new LegacyJsonRpcTransport({ endpoint: `${base}/a2a-legacy`, fetchImpl });
      const session = `legacy-${index}`;
      const said = `legacy ${name}`;
      const seen: unknown[] = [];
      for await (const event of client.sendMessageStream(userMessage(said, session)))
        seen.push(event);
      expect(seen.length).toBeGreaterThan(2);
      const event = await eventOf(
        (path) => way().read(path),
        (one) => one.phase === "response" && wordsOf(one) === said,
      );
      expect(event).toMatchObject({
        sessionId: session,
        a2a: { method: "message/stream", artifact: "Sunny in Bern", finalStatus: "completed" },
      });
      const taskId = event.a2a?.["taskId"] as string;
      const task = await client.getTask({ tenant: "", id: taskId });
      expect(task.id).toBe(taskId);
      const asked = await eventOf(
        (path) => way().read(path),
        (one) =>
          one.phase === "response" &&
          one.a2a?.["method"] === "tasks/get" &&
          one.a2a["taskId"] === taskId,
      );
      expect(asked.a2a).toMatchObject({ finalStatus: "completed" });
    });

    test("an unknown task is an error in the record", async () => {
      const client = await connect(way());
      await expect(client.getTask({ tenant: "", id: `none-${index}` })).rejects.toThrow();
      const event = await eventOf(
        (path) => way().read(path),
        (one) => one.phase === "response" && one.a2a?.["taskId"] === `none-${index}`,
      );
      expect(event.a2a?.["errorMessage"]).toMatch(/not found/i);
    });
  },
);
