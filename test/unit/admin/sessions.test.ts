import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { PluginView } from "../../../src/admin/catalogue.ts";
import { sessionRoutes, type SessionSources } from "../../../src/admin/sessions.ts";
import type { SessionEvent } from "../../../src/session/event.ts";
import { SessionStore } from "../../../src/session/store.ts";
import { Usage } from "../../../src/session/usage.ts";
import { readUntil, serve, type Served } from "./client.ts";

let store: SessionStore;
let usage: Usage;

beforeEach(() => {
  store = new SessionStore();
  usage = new Usage();
});
afterEach(() => store.close());

function served(sources: Partial<SessionSources> = {}): Promise<Served> {
  const pipelines = () => Promise.resolve({ inbound: [], outbound: [] });
  return serve(sessionRoutes({ store, usage, pipelines, ...sources }));
}

function event(sessionId: string, fields: Partial<SessionEvent> = {}): SessionEvent {
  return {
    sessionId,
    at: "2026-01-01T00:00:00.000Z",
    direction: "inbound",
    phase: "response",
    requestId: "f-1",
    host: "agent",
    ...fields,
  };
}

async function fetched(server: Served, path: string): Promise<unknown> {
  return JSON.parse((await server.get(path)).body);
}

describe("sessions", () => {
  test("M1: an empty list", async () => {
    const server = await served();
    expect(await fetched(server, "/v1/sessions")).toEqual({ sessions: [] });
  });

  test("M2: newest first with counts, and ?limit takes the newest", async () => {
    const server = await served();
    for (const id of ["s1", "s2", "s2"]) store.record(event(id));
    expect(await fetched(server, "/v1/sessions")).toMatchObject({
      sessions: [
        { id: "s2", eventCount: 2, active: true },
        { id: "s1", eventCount: 1, active: false },
      ],
    });
    expect(await fetched(server, "/v1/sessions?limit=1")).toMatchObject({
      sessions: [{ id: "s2" }],
    });
  });

  test("M3: an unknown session is 404", async () => {
    const { get } = await served();
    expect((await get("/v1/sessions/nobody")).status).toBe(404);
  });

  test("M4: events have readable words, and details are text for Go clients", async () => {
    const server = await served();
    const step = {
      plugin: "token-exchange",
      action: "modify",
      phase: "request",
      reason: "cache_hit",
      details: { cache_hit: true, hops: 2, route_host: "api" },
    } as const;
    store.record(event("s/1", { invocations: { inbound: [step] } }));
    const shown = await fetched(server, "/v1/sessions/s%2F1");
    expect(shown).toMatchObject({
      id: "s/1",
      events: [
        {
          direction: "inbound",
          phase: "response",
          invocations: {
            inbound: [{ details: { cache_hit: "true", hops: "2", route_host: "api" } }],
          },
        },
      ],
    });
  });

  test("?limit takes the last events and ?view=summary leaves payloads out", async () => {
    const server = await served();
    const inference = { model: "m", totalTokens: 9, messages: [{ role: "user", content: "x" }] };
    for (const requestId of ["a", "b", "c"]) store.record(event("s", { requestId, inference }));
    const shown = await fetched(server, "/v1/sessions/s?limit=2&view=summary");
    expect(shown).toMatchObject({
      events: [{ requestId: "b", inference: { model: "m", totalTokens: 9 } }, { requestId: "c" }],
    });
    expect(JSON.stringify(shown)).not.toContain("messages");
  });

  test.each(["limit=0", "limit=-1", "limit=x", "limit=1.5", "limit=", "view=other"])(
    "?%s is 400",
    async (query) => {
      const { get } = await served();
      for (const path of ["/v1/sessions", "/v1/sessions/s", "/v1/events"]) {
        expect((await get(`${path}?${query}`)).status).toBe(400);
      }
    },
  );

  test("a session of many large events arrives whole", async () => {
    const server = await served();
    const mcp = { params: "x".repeat(20_000) };
    for (let index = 0; index < 100; index += 1) store.record(event("s", { mcp }));
    const shown = (await fetched(server, "/v1/sessions/s")) as { events: SessionEvent[] };
    expect(shown.events).toHaveLength(100);
    expect(shown.events[99]?.mcp).toEqual(mcp);
  });

  test("an event that cannot be serialised loses its payload, not the answer", async () => {
    const server = await served();
    store.record(event("s", { requestId: "odd", mcp: { method: "m", id: 1n } }));
    expect(await fetched(server, "/v1/sessions/s")).toMatchObject({
      events: [{ requestId: "odd", mcp: { method: "m" } }],
    });
  });
});

describe("the event stream", () => {
  test("M5: greets, then sends each event with its number", async () => {
    const { open } = await served();
    const stream = await open("/v1/events");
    expect(stream.headers["content-type"]).toBe("text/event-stream");
    const text = readUntil(stream, "id: 2\n");
    store.record(event("s", { requestId: "one" }));
    store.record(event("s", { requestId: "two" }));
    const [greeting, first = ""] = (await text).split("\n\n");
    expect(greeting).toBe(": ok");
    const [kind, id, data = ""] = first.split("\n");
    expect([kind, id]).toEqual(["event: session-event", "id: 1"]);
    expect(JSON.parse(data.slice("data: ".length))).toMatchObject({ requestId: "one" });
  });

  test("M6: an idle stream gets heartbeats", async () => {
    const { open } = await served({ heartbeatMs: 5 });
    const stream = await open("/v1/events");
    expect(await readUntil(stream, ": heartbeat\n\n: heartbeat\n\n")).toMatch(/^: ok\n\n/);
  });

  test("M7: ?session gives only that session's events", async () => {
    const { open } = await served();
    const stream = await open("/v1/events?session=keep");
    const text = readUntil(stream, "last");
    store.record(event("other", { direction: "outbound", mcp: { method: "tools/call" } }));
    store.record(event("keep", { direction: "outbound", mcp: { method: "tools/call" } }));
    store.record(event("keep", { requestId: "last" }));
    const ids = [...(await text).matchAll(/"sessionId":"(\w+)"/g)].map((match) => match[1]);
    expect(ids).toEqual(["keep", "keep"]);
  });

  test("a reader that does not read is bounded, misses events and is told how many", async () => {
    const { open } = await served();
    const stream = await open("/v1/events");
    stream.pause();
    const mcp = { params: "x".repeat(100_000) };
    for (let round = 0; round < 40; round += 1) {
      for (let index = 0; index < 10; index += 1) store.record(event("s", { mcp }));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(store.dropped).toBeGreaterThan(100);
    expect(await readUntil(stream, ": dropped ")).toContain(": ok");
  });

  test("Last-Event-ID: a reader that comes back gets what it missed, then what is new, without a gap", async () => {
    const { open } = await served();
    for (let index = 1; index <= 600; index += 1) {
      store.record(event(`s${index % 3}`, { requestId: `e${index}` }));
    }
    const stream = await open("/v1/events", { headers: { "Last-Event-ID": "590" } });
    const text = readUntil(stream, "id: 601\n");
    store.record(event("s", { requestId: "new" }));
    const ids = [...(await text).matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id));
    expect(ids).toEqual([591, 592, 593, 594, 595, 596, 597, 598, 599, 600, 601]);
    stream.destroy();
  });

  test("Last-Event-ID: what is no longer kept is counted; an id of an earlier process means all", async () => {
    store.close();
    store = new SessionStore({ maxEvents: 5 });
    const { open } = await served();
    for (let index = 1; index <= 20; index += 1) store.record(event("s"));
    const first = async (id: string): Promise<string> => {
      const stream = await open("/v1/events", { headers: { "Last-Event-ID": id } });
      const text = await readUntil(stream, "id: 20\n");
      stream.destroy();
      return text;
    };
    expect(await first("10")).toMatch(/: dropped 5\n\nevent: session-event\nid: 16\n/);
    expect(await first("999")).toMatch(/: dropped 15\n\nevent: session-event\nid: 16\n/);
  });

  test("?limit sends the last events first", async () => {
    const { open } = await served();
    for (let index = 1; index <= 9; index += 1)
      store.record(event(index % 2 === 0 ? "even" : "odd"));
    const stream = await open("/v1/events?limit=2&session=even");
    expect(await readUntil(stream, "id: 8\n")).not.toContain("id: 4\n");
    stream.destroy();
  });

  test("a dead reader is closed after a few heartbeats", async () => {
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    const watched: SessionSources["store"] = {
      list: () => store.list(),
      get: (id) => store.get(id),
      after: (...given) => store.after(...given),
      subscribe: (...given) => {
        const subscription = store.subscribe(...given);
        const close = subscription.close.bind(subscription);
        subscription.close = () => {
          close();
          resolve();
        };
        return subscription;
      },
    };
    const { open } = await served({ heartbeatMs: 5, store: watched });
    const stream = await open("/v1/events");
    stream.on("error", () => undefined);
    stream.pause();
    const mcp = { params: "x".repeat(1_000_000) };
    const feeding = setInterval(() => store.record(event("s", { mcp })), 1);
    await closed.finally(() => clearInterval(feeding));
    stream.destroy();
  });

  test("streams are limited, and a closed one makes room", async () => {
    const { open, get } = await served();
    const streams = await Promise.all(Array.from({ length: 64 }, () => open("/v1/events")));
    expect((await get("/v1/events")).status).toBe(503);
    for (const stream of streams) stream.destroy();
    await expect.poll(async () => (await open("/v1/events")).statusCode).toBe(200);
  });
});

describe("introspection", () => {
  const plugin: PluginView = {
    name: "p",
    description: "d",
    readsBody: false,
    requires: [],
    requiresAny: [],
    fields: [{ name: "issuer", type: "string", required: true }],
  };

  test("M8: /v1/pipeline has both chains", async () => {
    const server = await served();
    expect(await fetched(server, "/v1/pipeline")).toEqual({ inbound: [], outbound: [] });
  });

  test("M9: /v1/plugins lists the catalogue, and is 404 without one", async () => {
    const server = await served({ plugins: () => Promise.resolve([plugin]) });
    expect(await fetched(server, "/v1/plugins")).toEqual({ plugins: [plugin] });
    expect((await (await served()).get("/v1/plugins")).status).toBe(404);
  });

  test("/healthz says ok", async () => {
    const { get } = await served();
    expect(await get("/healthz")).toMatchObject({ status: 200, body: "ok\n" });
  });
});

describe("usage", () => {
  test("#878: counts by minute in the Go program's shape", async () => {
    const server = await served();
    usage.record(event("s", { at: new Date().toISOString(), statusCode: 500 }));
    const shown = (await fetched(server, "/v1/usage?window=1h&resolution=5m&group=status")) as {
      buckets: { series?: object }[];
    };
    expect(shown).toMatchObject({
      window: "1h0m0s",
      bucketSeconds: 300,
      group: "status",
      priced: false,
      totals: { requests: 1, errors: 1 },
    });
    expect(shown.buckets).toHaveLength(12);
    expect(shown.buckets.at(-1)?.series).toEqual({ 500: { requests: 1, errors: 1 } });
  });

  for (const query of ["window=7h", "window=90s", "window=x", "resolution=20m", "group=user"]) {
    test(`${query} is 400 and not repeated`, async () => {
      const { get } = await served();
      const answer = await get(`/v1/usage?${query}`);
      expect(answer.status).toBe(400);
      expect(answer.body).not.toContain("user,");
    });
  }
});
