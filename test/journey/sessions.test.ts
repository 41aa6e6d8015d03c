/** Whose event is it, when several users are served at once, and what becomes of it when its readers or files fail. */
import { realpathSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get, RawClient, request } from "../support/http-client.ts";
import { readHead } from "../support/http-message.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type Settings } from "../support/program.ts";
import { journeyPlugins, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { a2aMessage, ask, type Propagation, SessionAgent } from "../support/session-agent.ts";

const own = owner();
const intentPlugin = fileURLToPath(new URL("../support/intent-plugin.ts", import.meta.url));

interface Event {
  readonly sessionId: string;
  readonly direction: string;
  readonly phase: string;
  readonly httpPath?: string;
  readonly executable?: string;
  readonly a2a?: { readonly parts?: readonly { readonly content: string }[] };
  readonly mcp?: { readonly params?: { readonly arguments?: { readonly user: string } } };
  readonly invocations?: Readonly<Record<string, readonly Settings[]>>;
}

async function sessionsOf(proxy: ProxyProcess): Promise<Record<string, number>> {
  const { sessions } = (await proxy.sessions("/v1/sessions")).json() as {
    sessions: { id: string; eventCount: number }[];
  };
  return Object.fromEntries(sessions.map(({ id, eventCount }) => [id, eventCount]));
}

async function eventsOf(proxy: ProxyProcess, id: string): Promise<readonly Event[]> {
  return ((await proxy.sessions(`/v1/sessions/${id}`)).json() as { events: Event[] }).events;
}

/** Runs tasks with so many under way at once. */
async function atOnce(width: number, tasks: readonly (() => Promise<unknown>)[]): Promise<void> {
  const waiting = tasks.values();
  await Promise.all(
    Array.from({ length: width }, async () => {
      for (const task of waiting) await task();
    }),
  );
}

describe("Z9: users at once, under load", () => {
  const users = ["alice", "bob", "carol"];
  const turns = 40;

  async function served(propagation: Propagation, session: Settings = {}) {
    const idp = await own(StubIdp.start());
    idp.issue = ({ form }) => {
      const payload = (form.get("subject_token") ?? "").split(".")[1] ?? "";
      const { sub } = JSON.parse(Buffer.from(payload, "base64url").toString()) as { sub: string };
      return { access_token: `for-${sub}`, token_type: "Bearer", expires_in: 300 };
    };
    const tool = await own(
      HttpOrigin.launch(() => {
        const result = { content: [{ type: "text", text: "found" }] };
        return reply(200, JSON.stringify({ jsonrpc: "2.0", id: 1, result }), {
          "Content-Type": "application/json",
        });
      }),
    );
    const agent = await own(SessionAgent.start());
    const exchange = {
      token_url: idp.tokenUrl,
      identity: { type: "client-secret", client_id: "a", client_secret: "s" },
      no_token_policy: "allow",
      routes: { rules: [{ host: "127.0.0.1", target_audience: "tool" }] },
    };
    const proxy = await own(
      ProxyProcess.start(
        settings({
          listener: { reverse_proxy_backend: agent.url },
          session: { max_events: 10_000, ...session },
          plugin_modules: [journeyPlugins, intentPlugin],
          pipeline: {
            inbound: {
              plugins: [
                { name: "jwt-validation", config: { issuer: idp.issuer, audience: "agent" } },
                "a2a-parser",
              ],
            },
            outbound: {
              plugins: [
                "mcp-parser",
                "intent-reader",
                { name: "token-exchange", config: exchange },
              ],
            },
          },
        }),
      ),
    );
    Object.assign(agent, {
      proxy: proxy.forward,
      propagation,
      isMcp: true,
      tools: [`${tool.url}/tool`, `${tool.url}/other`],
    });
    return { proxy, idp, tool };
  }

  async function talk(
    proxy: ProxyProcess,
    idp: StubIdp,
    extra: (user: string) => Record<string, string>,
  ): Promise<void> {
    const tokens = new Map<string, string>();
    for (const user of users) tokens.set(user, await idp.token({ claims: { sub: user } }));
    const say = async (user: string, turn: number, contextId?: string): Promise<void> => {
      const headers = {
        Authorization: `Bearer ${tokens.get(user) ?? ""}`,
        "Content-Type": "application/json",
        ...extra(user),
      };
      const body = a2aMessage(`${user} ${turn}`, contextId);
      const answer = await ask(proxy.reverse, "/", { method: "POST", headers, body });
      expect(answer.status, answer.body).toBe(200);
    };
    // The first turns leave it to the answer to name the conversation.
    await Promise.all(users.map((user) => say(user, 0)));
    const tasks = Array.from({ length: turns - 1 }, (_, turn) =>
      users.map((user) => () => say(user, turn + 1, `ctx-${user}`)),
    ).flat();
    await atOnce(16, tasks);
  }

  const ways: [Propagation, Settings, (user: string) => Record<string, string>][] = [
    ["traceparent", {}, () => ({})],
    ["authorization", { add_traceparent: false }, () => ({})],
    [
      "x-conversation",
      { header: "X-Conversation", add_traceparent: false },
      (user) => ({ "x-conversation": `conv-${user}` }),
    ],
  ];
  for (const [propagation, session, extra] of ways) {
    test(`every event, intent and exchange is in its own session, tied by ${propagation}`, async () => {
      const { proxy, idp, tool } = await served(propagation, session);
      await talk(proxy, idp, extra);
      const prefix = propagation === "x-conversation" ? "conv" : "ctx";
      await eventually(async () => {
        const wanted = Object.fromEntries(users.map((user) => [`${prefix}-${user}`, turns * 6]));
        expect(await sessionsOf(proxy)).toEqual(wanted);
        return true;
      });
      for (const user of users) {
        for (const event of await eventsOf(proxy, `${prefix}-${user}`)) {
          expectOf(user, event, propagation);
        }
      }
      for (const seen of tool.requests) {
        const user = seen.target.split("/")[2] ?? "";
        if (propagation === "authorization")
          expect(seen.header("authorization")).toBe(`Bearer for-${user}`);
      }
    });
  }

  function expectOf(user: string, event: Event, propagation: Propagation): void {
    if (event.direction === "inbound") {
      expect(event.a2a?.parts?.[0]?.content).toMatch(new RegExp(`^${user} `));
      return;
    }
    expect(event.httpPath).toContain(`/${user}/`);
    expect(event.mcp?.params?.arguments?.user).toBe(user);
    if (event.phase !== "request") return;
    const steps = event.invocations?.["outbound"] ?? [];
    const intent = steps.find((step) => step["plugin"] === "intent-reader")?.[
      "details"
    ] as Settings;
    expect(intent["text"]).toMatch(new RegExp(`^${user} `));
    if (propagation !== "authorization") return;
    expect(steps.find((step) => step["plugin"] === "token-exchange")).toMatchObject({
      action: "modify",
    });
  }

  test("an agent that passes nothing on: nobody's event lands with somebody else", async () => {
    const { proxy, idp } = await served("nothing");
    await talk(proxy, idp, () => ({}));
    await eventually(async () => {
      const counts = Object.values(await sessionsOf(proxy));
      return counts.reduce((sum, count) => sum + count, 0) === users.length * turns * 6;
    });
    // Now and then one alone was served: what came then is its own.
    for (const user of users) {
      for (const event of await eventsOf(proxy, `ctx-${user}`)) expectOf(user, event, "nothing");
    }
  });
});

describe("inbound", () => {
  test("J8, J9, J10: plain messages, answered and refused, are in default", async () => {
    const agent = await own(SessionAgent.start());
    const idp = await own(StubIdp.start());
    const jwt = { name: "jwt-validation", config: { issuer: idp.issuer, audience: "agent" } };
    const proxy = await own(
      ProxyProcess.start(
        settings({
          listener: { reverse_proxy_backend: agent.url },
          pipeline: { inbound: { plugins: [jwt, "a2a-parser"] } },
        }),
      ),
    );
    const headers = {
      Authorization: `Bearer ${await idp.token()}`,
      "Content-Type": "application/json",
    };
    await ask(proxy.reverse, "/", {
      method: "POST",
      headers,
      body: a2aMessage("alice 0", "ctx-live"),
    });
    await ask(proxy.reverse, "/plain", { headers });
    await ask(proxy.reverse, "/refused");
    // Refused before any plugin was asked: no event.
    await request(proxy.reverse, { method: "TRACE", target: "/" });
    await eventually(async () => (await sessionsOf(proxy))["default"] === 3);
    expect(await eventsOf(proxy, "default")).toMatchObject([
      { direction: "inbound", phase: "request", httpPath: "/plain" },
      { direction: "inbound", phase: "response", httpPath: "/plain", statusCode: 200 },
      {
        direction: "inbound",
        phase: "denied",
        httpPath: "/refused",
        statusCode: 401,
        error: { code: "auth.unauthorized" },
      },
    ]);
  });

  test("J7: the first turn moves to the conversation that its answer names", async () => {
    const agent = await own(SessionAgent.start());
    const proxy = await own(
      ProxyProcess.start(
        settings({
          listener: { reverse_proxy_backend: agent.url },
          pipeline: { inbound: { plugins: ["a2a-parser"] } },
        }),
      ),
    );
    const headers = { "Content-Type": "application/json" };
    await ask(proxy.reverse, "/", { method: "POST", headers, body: a2aMessage("1234 0") });
    await eventually(async () => (await sessionsOf(proxy))["ctx-1234"] === 2);
    expect(await sessionsOf(proxy)).toEqual({ "ctx-1234": 2 });
    const events = await eventsOf(proxy, "ctx-1234");
    expect(events).toMatchObject([
      { phase: "request", sessionId: "ctx-1234" },
      { phase: "response", sessionId: "ctx-1234", statusCode: 200 },
    ]);
  });
});

describe("who watches", () => {
  test.each([1, 2])(
    "sees a response beside its request, and where both have moved: workers %i",
    async (workers) => {
      const agent = await own(SessionAgent.start());
      const proxy = await own(
        ProxyProcess.start(
          settings({
            workers,
            listener: { roles: ["reverse"], reverse_proxy_backend: agent.url },
            pipeline: { inbound: { plugins: ["a2a-parser"] } },
          }),
        ),
      );
      const feeds = await Promise.all(
        ["", "?session=default", "?session=ctx-1234"].map(async (query) => {
          const client = await RawClient.connect(proxy.address("sessions"));
          client.send(`GET /v1/events${query} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
          await client.sees(": ok");
          return client;
        }),
      );
      const headers = { "Content-Type": "application/json" };
      await ask(proxy.reverse, "/", { method: "POST", headers, body: a2aMessage("1234 0") });
      for (const client of feeds.slice(0, 2)) {
        const text = await client.sees('"movedTo":"ctx-1234"}');
        const events = [...text.matchAll(/data: (\{.*\})/g)].map(
          ([, data = ""]) => JSON.parse(data) as Event & { readonly movedTo?: string },
        );
        expect(events.map(({ phase, sessionId, movedTo }) => [phase, sessionId, movedTo])).toEqual([
          ["request", "default", undefined],
          ["response", "default", "ctx-1234"],
        ]);
      }
      const moved = await feeds[2]?.sees('"phase":"response"');
      expect(moved).toContain('"sessionId":"ctx-1234"');
      expect(moved).not.toContain("movedTo");
      for (const client of feeds) client.socket.destroy();
      expect(await sessionsOf(proxy)).toEqual({ "ctx-1234": 2 });
    },
  );
});

describe("what fails does not stop traffic", () => {
  test.each([1, 2])(
    "readers that do not read, and readers that are gone: workers %i",
    async (workers) => {
      const origin = await own(HttpOrigin.launch());
      const proxy = await own(
        ProxyProcess.start(settings({ workers, listener: { roles: ["forward"] } })),
      );
      const api = proxy.address("sessions");
      const readers = await Promise.all(Array.from({ length: 40 }, () => RawClient.connect(api)));
      for (const [index, reader] of readers.entries()) {
        reader.socket.write(`GET /v1/events HTTP/1.1\r\nHost: ${api.host}:${api.port}\r\n\r\n`);
        reader.socket.pause();
        if (index % 2 === 1) setTimeout(() => reader.socket.resetAndDestroy(), index);
      }
      const before = await proxy.metric("process_resident_memory_bytes");
      const path = `/${"x".repeat(1_500)}`;
      const tasks = Array.from({ length: 4_000 }, () => async () => {
        expect((await ask(proxy.forward, `${origin.url}${path}`)).status).toBe(200);
      });
      await atOnce(32, tasks);
      const after = await proxy.metric("process_resident_memory_bytes");
      expect(after - before).toBeLessThan(200 * 1_048_576);
      for (const reader of readers) reader.socket.destroy();
      // The places of those that are gone are free again.
      await eventually(async () => {
        const feeds = await Promise.all(Array.from({ length: 64 }, () => RawClient.connect(api)));
        const heads = await Promise.all(
          feeds.map((feed) => {
            feed.socket.write(`GET /v1/events HTTP/1.1\r\nHost: ${api.host}:${api.port}\r\n\r\n`);
            return readHead(feed.reader);
          }),
        );
        for (const feed of feeds) feed.socket.destroy();
        return heads.every((head) => head?.startLine === "HTTP/1.1 200 OK");
      });
      expect((await proxy.stop()).code).toBe(0);
    },
  );

  test("a full disk and a dead path: one line in the log each, counted, and the end is clean", async () => {
    const origin = await own(HttpOrigin.launch());
    const config = settings({
      session: { persist: { path: "/proc/nowhere/events.jsonl" } },
      audit: { path: "/dev/full" },
    });
    const proxy = await own(ProxyProcess.start(config));
    for (let index = 0; index < 20; index += 1) {
      expect((await request(proxy.forward, { target: `${origin.url}/${index}` })).status).toBe(200);
    }
    await eventually(async () => (await proxy.metric("authbridge_file_outages_total")) === 2);
    await eventually(
      () =>
        proxy.logs.filter((line) => line["msg"] === "the file cannot be written; traffic goes on")
          .length === 2,
    );
    expect((await sessionsOf(proxy))["default"]).toBe(40);
    const { code, stderr } = await proxy.stop();
    expect(code).toBe(0);
    expect(stderr.match(/cannot be written/g)).toHaveLength(2);
    expect(stderr).toContain("ENOSPC");
  });

  test("a taken port of the session API", async () => {
    const taken: Server = createServer();
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
    await own({ close: () => void taken.close() });
    const address = taken.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const origin = await own(HttpOrigin.launch());
    const proxy = await own(
      ProxyProcess.start(settings({ listener: { session_api_addr: `127.0.0.1:${port}` } })),
    );
    expect(proxy.surfaces).not.toContain("sessions");
    expect((await request(proxy.forward, { target: origin.url })).status).toBe(200);
    await proxy.log((line) => line["msg"] === "operator surface could not be bound");
  });
});

describe("operators' choices", () => {
  test("events are there again after a restart, with persist", async () => {
    const origin = await own(HttpOrigin.launch());
    const config = settings({ session: { persist: { path: "events.jsonl" } } });
    const first = await own(ProxyProcess.start(config));
    await request(first.forward, { target: `${origin.url}/before` });
    await first.stop();
    const path = first.path("events.jsonl");
    const second = await own(ProxyProcess.start(settings({ session: { persist: { path } } })));
    expect(await eventsOf(second, "default")).toMatchObject([
      { phase: "request", httpPath: "/before" },
      { phase: "response", httpPath: "/before" },
    ]);
    await request(second.forward, { target: `${origin.url}/after` });
    await eventually(async () => (await sessionsOf(second))["default"] === 4);
    const { totals } = (await second.sessions("/v1/usage")).json() as { totals: object };
    expect(totals).toMatchObject({ requests: 2 });
  });

  test.each([
    ["session.persist", (bounds: Settings): Settings => ({ session: { persist: bounds } }), 40],
    ["audit", (bounds: Settings): Settings => ({ audit: bounds }), 110],
  ])(
    "%s begins a new file at max_file, and keeps max_files of them",
    async (_key, block, requests) => {
      const origin = await own(HttpOrigin.launch());
      const start = (max_files: number): Promise<ProxyProcess> =>
        own(ProxyProcess.start(settings(block({ path, max_file: "64KiB", max_files }))));
      const directory = await mkdtemp(join(tmpdir(), "authbridge-journal-"));
      await own({ close: () => rm(directory, { recursive: true, force: true }) });
      const path = join(directory, "log");
      const fill = async (proxy: ProxyProcess): Promise<void> => {
        const target = `${origin.url}/${"x".repeat(6_000)}`;
        for (let count = 0; count < requests; count += 1) await request(proxy.forward, { target });
        expect((await proxy.stop()).code).toBe(0);
      };
      await fill(await start(3));
      const kept = ["log", "log.1", "log.2"];
      const found = async (): Promise<string[]> =>
        (await readdir(directory)).filter((name) => /^log(?:\.\d+)?$/.test(name)).toSorted();
      expect(await found()).toEqual(kept);
      for (const name of kept)
        expect((await stat(join(directory, name))).size).toBeLessThanOrEqual(65_536);
      await fill(await start(2));
      expect(await found()).toEqual(kept.slice(0, 2));
    },
  );

  test("max_sessions and max_events are as many as are kept, of the newest", async () => {
    const origin = await own(HttpOrigin.launch());
    const session = { header: "X-Conversation", max_sessions: 2, max_events: 3 };
    const proxy = await own(ProxyProcess.start(settings({ session })));
    for (const conversation of ["one", "two", "three"])
      for (const path of ["a", "b"])
        await request(proxy.forward, {
          target: `${origin.url}/${path}`,
          headers: { Host: origin.authority, "X-Conversation": conversation },
        });
    await eventually(async () => expect(await sessionsOf(proxy)).toEqual({ two: 3, three: 3 }));
    const paths = (await eventsOf(proxy, "three")).map(({ httpPath }) => httpPath);
    expect(paths).toEqual(["/a", "/b", "/b"]);
  });

  test("max_bytes is as much memory as events take", async () => {
    const origin = await own(HttpOrigin.launch());
    const session = { max_bytes: "1MiB", max_events: 10_000 };
    const proxy = await own(ProxyProcess.start(settings({ session })));
    const target = `${origin.url}/${"x".repeat(8_000)}`;
    for (let count = 0; count < 450; count += 1) await request(proxy.forward, { target });
    const { default: kept = 0 } = await sessionsOf(proxy);
    expect(kept).toBeGreaterThan(50);
    expect(kept).toBeLessThan(800);
  });

  test.runIf(process.platform === "linux")(
    "executables: events name what made the connection, and nobody looks where that is not asked",
    async () => {
      const origin = await own(HttpOrigin.launch());
      for (const executables of [true, false]) {
        const proxy = await own(ProxyProcess.start(settings({ session: { executables } })));
        await request(proxy.forward, { target: `${origin.url}/looked-up` });
        const { executable } = (await eventsOf(proxy, "default"))[0] ?? {};
        expect(executable).toBe(executables ? realpathSync(process.execPath) : undefined);
      }
    },
  );

  test("a secret from a file that rotates, and web pages of listed origins", async () => {
    const config = settings({
      session: { api_secret_file: "secret.txt", api_cors_origins: ["https://console.example"] },
    });
    const proxy = await own(ProxyProcess.start(config, { files: { "secret.txt": "first\n" } }));
    const api = proxy.address("sessions");
    const status = async (headers: Record<string, string>): Promise<number> =>
      (await get(api, "/v1/sessions", { Host: "localhost", Connection: "close", ...headers }))
        .status;
    expect(await status({})).toBe(401);
    expect(await status({ Authorization: "Bearer first" })).toBe(200);
    await writeFile(proxy.path("secret.txt"), "second");
    await eventually(async () => (await status({ Authorization: "Bearer second" })) === 200);
    expect(await status({ Authorization: "Bearer first" })).toBe(401);
    const listed = await get(api, "/healthz", {
      Host: "localhost",
      Connection: "close",
      Origin: "https://console.example",
    });
    expect(listed.header("access-control-allow-origin")).toBe("https://console.example");
  });

  test("bodies: off keeps what was called and not what was said; patterns are taken out", async () => {
    const origin = await own(
      HttpOrigin.launch(() =>
        reply(200, '{"jsonrpc":"2.0","id":1,"result":{"secret":"result"}}', {
          "Content-Type": "application/json",
        }),
      ),
    );
    const call = (args: object): Parameters<typeof ask>[2] => ({
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        jsonrpc: "2.0",
        id: 1,
        method: "tools/call",
        params: { name: "pay", arguments: args },
      }),
    });
    const off = await own(
      ProxyProcess.start(settings({ ...outbound("mcp-parser"), session: { bodies: "off" } })),
    );
    await ask(off.forward, `${origin.url}/mcp`, call({ to: "bob" }));
    const [event] = await eventsOf(off, "default");
    expect(event?.mcp).toEqual({
      method: "tools/call",
      rpcId: 1,
      isAction: true,
      params: { name: "pay" },
    });
    const patterns = await own(
      ProxyProcess.start(
        settings({ ...outbound("mcp-parser"), session: { redact: ["EMP-[0-9]+"] } }),
      ),
    );
    await ask(patterns.forward, `${origin.url}/mcp`, call({ to: "EMP-1234", password: "hunter2" }));
    const [clean] = await eventsOf(patterns, "default");
    expect(clean?.mcp?.params?.arguments).toEqual({ to: "[REDACTED]", password: "[REDACTED]" });
  });
});
