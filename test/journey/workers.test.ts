/** Several threads in one process: `workers`. */
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import type { ObservedDenials } from "../../src/policy/suggestion-text.ts";
import { eventually } from "../support/eventually.ts";
import { get, openTunnel, request } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin, reply, TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runWith, type Settings } from "../support/program.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const threadPlugins = fileURLToPath(new URL("../support/thread-plugins.ts", import.meta.url));

interface Shown {
  readonly thread: number;
  readonly isMainThread: boolean;
  readonly isAlone: boolean;
  readonly word: string;
  readonly count: number;
}

function file(config: Settings = {}, over: Settings = {}): Settings {
  const base = settings({
    plugin_modules: [threadPlugins],
    workers: 2,
    limits: { drain_timeout: "5s" },
    pipeline: { outbound: { plugins: [{ name: "thread", config }] } },
  });
  return merge(base, over);
}

/** What one of the threads says; each call is a connection of its own. */
async function ask(proxy: ProxyProcess): Promise<Shown> {
  const response = await get(proxy.forward, "http://thread.test/");
  expect(response.status).toBe(200);
  return response.json() as Shown;
}

/** Asks until both threads have answered. */
async function askBoth(proxy: ProxyProcess): Promise<ReadonlySet<number>> {
  const threads = new Set<number>();
  await eventually(async () => {
    threads.add((await ask(proxy)).thread);
    return threads.size === 2;
  });
  return threads;
}

let origin: HttpOrigin;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
});

describe("two threads", () => {
  let proxy: ProxyProcess;
  beforeAll(async () => {
    proxy = await own(ProxyProcess.start(file()));
  });

  test("share the port, and neither is the one in control", async () => {
    const threads = await askBoth(proxy);
    expect(threads).not.toContain(0);
    expect(await ask(proxy)).toMatchObject({ isMainThread: false, isAlone: false });
  });

  test("have one memory for plugins that ask for it, deps.shared", async () => {
    const { count: before } = await ask(proxy);
    await askBoth(proxy);
    const { count } = await ask(proxy);
    const { count: next } = await ask(proxy);
    expect(count).toBeGreaterThan(before + 1);
    expect(next).toBe(count + 1);
  });

  test("are one in metrics, in sessions and in the log", async () => {
    const labels = { direction: "outbound", outcome: "ok" };
    const flows = (): Promise<number> => proxy.metric("authbridge_flows_total", labels);
    const before = await flows();
    const paths = Array.from({ length: 12 }, (_, index) => `/pass?n=${index}`);
    for (const path of paths)
      expect(await get(proxy.forward, `http://127.0.0.1:${origin.port}${path}`)).toMatchObject({
        status: 200,
      });
    await eventually(async () => (await flows()) === before + paths.length);
    const lines = await eventually(() => {
      const found = proxy.logs.filter(({ path }) => path === "/pass");
      return found.length === paths.length && found;
    });
    const ids = new Set(lines.map(({ flow }) => flow));
    expect(ids.size).toBe(paths.length);
    const { events } = (await proxy.sessions("/v1/sessions/default")).json() as {
      readonly events: readonly { readonly requestId: string }[];
    };
    const recorded = new Set(events.map(({ requestId }) => requestId));
    expect([...ids].filter((id) => !recorded.has(String(id)))).toEqual([]);
    expect(await proxy.metric("authbridge_threads")).toBe(2);
  });

  test("do not make it ready before both are", async () => {
    expect(await proxy.health("/readyz")).toMatchObject({ status: 200 });
  });
});

test("what all threads would say of the file is said once, again after a reload", async () => {
  const judge = { judge_endpoint: "http://127.0.0.1:9", judge_model: "m" };
  const plugins = ["mcp-parser", { name: "ibac", config: judge }];
  const proxy = await own(ProxyProcess.start(file({}, { pipeline: { outbound: { plugins } } })));
  const said = (): number =>
    proxy.logs.filter(({ plugin, level }) => plugin === "ibac" && level === "warn").length;
  await eventually(() => said() === 1);
  const other = { ...judge, judge_model: "n" };
  const changed = ["mcp-parser", { name: "ibac", config: other }];
  await proxy.reload(file({}, { pipeline: { outbound: { plugins: changed } } }));
  await eventually(() => said() === 2);
  await proxy.stop();
  expect(said()).toBe(2);
});

describe("what policies refuse in both threads", () => {
  test("is allowed by one addition", async () => {
    const policy = { name: "egress-policy", config: { allow: ["elsewhere.test:443"] } };
    const proxy = await own(
      ProxyProcess.start(file({}, { pipeline: { outbound: { plugins: [policy] } } })),
    );
    const host = "refused.test";
    let asked = 0;
    const seen = await eventually(async () => {
      asked += 1;
      expect((await get(proxy.forward, `http://${host}/p${asked}`)).status).toBe(403);
      const { instances } = (await proxy.sessions("/v1/policy/denials")).json() as {
        readonly instances: readonly { readonly observed: ObservedDenials }[];
      };
      const denials = instances.flatMap(({ observed }) => observed.denials);
      return denials.length === 2 && denials;
    });
    const paths = seen.flatMap(({ samples }) => samples.map(({ path }) => path));
    expect(paths.length).toBe(asked);
    const chosen = encodeURIComponent(`${host}:80 ${seen[0]?.binary ?? ""}`);
    const suggested = (await proxy.sessions(`/v1/policy/suggestion?denial=${chosen}`)).json() as {
      readonly instances: readonly { readonly addition: { readonly text: string } }[];
    };
    expect(suggested.instances).toHaveLength(1);
    const text = suggested.instances[0]?.addition.text ?? "";
    const missing = paths.filter((path) => !text.includes(path));
    expect({ text, missing }).toMatchObject({ missing: [] });
  });
});

describe("limits of the process", () => {
  test("max_tunnels counts the tunnels of both threads, and a closed one makes room", async () => {
    const far = await own(
      TcpOrigin.start(({ socket }) => void socket.resume().once("end", () => socket.end())),
    );
    const plugins = { pipeline: { outbound: { plugins: [], default: "allow" } } };
    const proxy = await own(
      ProxyProcess.start(file({}, merge(plugins, { limits: { max_tunnels: 3 } }))),
    );
    const target = `127.0.0.1:${far.port}`;
    const open = async () => openTunnel(proxy.forward, target);
    const tunnels = [await open(), await open(), await open()];
    for (const { answer } of tunnels) expect(answer.status).toBe(200);
    expect((await open()).answer.status).toBe(503);
    tunnels[0]?.client.socket.destroy();
    await eventually(async () => (await open()).answer.status === 200);
  });
});

describe("what is asked for once", () => {
  let idp: StubIdp;
  let proxy: ProxyProcess;
  beforeAll(async () => {
    idp = await own(StubIdp.start());
    const identity = { type: "client-secret", client_id: "a", client_secret: "b" };
    const routes = { rules: [{ host: "target.test", target_audience: "target" }] };
    const exchange = {
      name: "token-exchange",
      config: { token_url: idp.tokenUrl, identity, routes, resolve_placeholders: true },
    };
    const validation = {
      name: "jwt-validation",
      config: {
        issuer: idp.issuer,
        audience: "agent",
        placeholder_mode: true,
        backchannel_logout: true,
      },
    };
    proxy = await own(
      ProxyProcess.start(
        file(
          {},
          {
            listener: {
              roles: ["forward", "reverse"],
              reverse_proxy_backend: `http://127.0.0.1:${origin.port}`,
            },
            session: { enabled: false },
            egress: { hosts: { "target.test": ["127.0.0.1"] } },
            pipeline: {
              inbound: { plugins: [validation] },
              outbound: { plugins: [exchange] },
            },
          },
        ),
      ),
    );
  });

  const enter = async (token: string): Promise<number> => {
    const headers = { Authorization: `Bearer ${token}`, Connection: "close" };
    return (await get(proxy.reverse, "/in", headers)).status;
  };
  const leave = async (token: string): Promise<number> => {
    const target = `http://target.test:${origin.port}/pass`;
    const headers = { Authorization: `Bearer ${token}`, Connection: "close" };
    return (await get(proxy.forward, target, headers)).status;
  };
  const many = Array.from({ length: 16 });

  test("a token that is exchanged, by whichever thread", async () => {
    const token = await idp.token();
    const statuses = await Promise.all(many.map(() => leave(token)));
    expect(new Set(statuses)).toEqual(new Set([200]));
    for (const _each of many) expect(await leave(token)).toBe(200);
    const asked = idp.tokenCalls.filter(({ form }) => form.get("subject_token") === token);
    expect(asked).toHaveLength(1);
  });

  test("a placeholder of one thread stands for the token in the other as well", async () => {
    const token = await idp.token({ claims: { sub: "placeheld" } });
    expect(await enter(token)).toBe(200);
    const handle = origin.requests.at(-1)?.header("authorization")?.replace("Bearer ", "") ?? "";
    expect(handle).toMatch(/^abph_/);
    for (const _each of many) expect(await leave(handle)).toBe(200);
  });

  test("a login that has ended has ended in both threads", async () => {
    const claims = { sub: "leaver", sid: "session-of-leaver" };
    const token = await idp.token({ claims });
    const statuses = await Promise.all(many.map(() => enter(token)));
    expect(new Set(statuses)).toEqual(new Set([200]));
    const event = "http://schemas.openid.net/event/backchannel-logout";
    const logout = await idp.token({
      header: { typ: "logout+jwt" },
      without: ["azp", "scope"],
      claims: { ...claims, jti: "logout-1", events: { [event]: {} } },
    });
    const { host, port } = proxy.address("stats");
    const posted = await request(proxy.address("stats"), {
      method: "POST",
      target: "/backchannel-logout",
      headers: {
        Host: `${host}:${port}`,
        Connection: "close",
        "Content-Type": "application/x-www-form-urlencoded",
      },
      body: new URLSearchParams({ logout_token: logout }).toString(),
    });
    expect(posted.status, posted.text).toBe(200);
    for (const _each of many) expect(await enter(token)).toBe(401);
  });
});

describe("budgets that both threads count", () => {
  const hundred = (): string[] =>
    Array.from({ length: 100 }, (_, index) => `http://127.0.0.1:${origin.port}/b${index}`);

  test("are one for a hundred requests at once, and are shown as one", async () => {
    const limits = [{ name: "daily", unit: "requests", limit: 40, window: "day" }];
    const plugins = [{ name: "budgets", config: { limits } }];
    const proxy = await own(ProxyProcess.start(file({}, { pipeline: { outbound: { plugins } } })));
    const all = await Promise.all(hundred().map((url) => get(proxy.forward, url)));
    expect(all.filter(({ status }) => status === 200)).toHaveLength(40);
    const shown: unknown = (await proxy.sessions("/v1/budgets")).json();
    expect(shown).toMatchObject({
      instances: [
        { plugin: "budgets", budgets: { limits: [{ budget: "daily", used: 40, limit: 40 }] } },
      ],
    });
    expect((shown as { readonly instances: unknown[] }).instances).toHaveLength(1);
  });

  test.skipIf(!hasRedis)(
    "are counted in a store that a plugin names by its address, and what was approved holds",
    async () => {
      const server = await own(RedisServer.start());
      const config = { redis_url: server.url, max_calls: 1, default_session_fallback: true };
      const plugins = [{ name: "session-budget", config }, "inference-parser"];
      const proxy = await own(
        ProxyProcess.start(file({}, { pipeline: { outbound: { plugins } } })),
      );
      const body = JSON.stringify({ model: "m", messages: [{ role: "user", content: "hi" }] });
      const call = async (): Promise<number> =>
        (
          await request(proxy.forward, {
            method: "POST",
            target: `http://127.0.0.1:${origin.port}/v1/chat/completions`,
            headers: { "Content-Type": "application/json", Connection: "close" },
            body,
          })
        ).status;
      expect(await call()).toBe(200);
      expect(await Promise.all(Array.from({ length: 12 }, call))).toEqual(Array(12).fill(403));
      const approver = await own(HttpOrigin.launch(() => reply(200, '{"action":"approve"}')));
      const pause = { ...config, on_exceed: "pause", pause_webhook: `${approver.url}/approve` };
      const again = (config: Settings): Promise<void> => {
        const plugins = [{ name: "session-budget", config }, "inference-parser"];
        return proxy.reload(file({}, { pipeline: { outbound: { plugins } } }));
      };
      await again(pause);
      expect(await call()).toBe(200);
      await again({ ...pause, pause_timeout: "9s" });
      expect(await Promise.all(Array.from({ length: 12 }, call))).toEqual(Array(12).fill(200));
      expect(approver.requestsFor("/approve")).toHaveLength(1);
    },
  );
});

describe("a file that several threads cannot serve is refused", () => {
  const refused: [string, Settings, string][] = [
    ["fewer places than threads", { limits: { max_name_lookups: 1 } }, "is less than workers (2)"],
    ["no number of threads", { workers: 0 }, "must be at least 1"],
    [
      "a plugin that one thread has to serve alone",
      { pipeline: { outbound: { plugins: ["thread", "alone"] } } },
      "it is by itself: set workers: 1",
    ],
  ];
  test.each(refused)("%s", async (_what, over, words) => {
    const { code, stderr, stdout } = await runWith("check", file({}, over));
    expect({ code, said: stderr + stdout }).toEqual({
      code: 2,
      said: expect.stringContaining(words) as unknown,
    });
  });
});

describe("a reload", () => {
  test("is there in both threads, or in neither", async () => {
    const proxy = await own(ProxyProcess.start(file({ word: "one" })));
    await proxy.reload(file({ word: "two" }));
    for (let count = 0; count < 12; count += 1)
      expect(await ask(proxy)).toMatchObject({ word: "two" });
    await askBoth(proxy);
    const why = await proxy.refusedReload(file({ word: "three", failsInOne: true }));
    expect(why).toContain('plugin "thread" failed to start: not in this one');
    for (let count = 0; count < 12; count += 1)
      expect(await ask(proxy)).toMatchObject({ word: "two" });
    await askBoth(proxy);
    await proxy.reload(file({ word: "four" }));
    for (let count = 0; count < 12; count += 1)
      expect(await ask(proxy)).toMatchObject({ word: "four" });
  });

  test("a start that one thread refuses is a start that is refused", async () => {
    const { code, stderr } = await runWith("run", file({ failsInOne: true }));
    expect(code).toBe(2);
    expect(stderr).toContain("not in this one");
  });
});

describe("a thread that ends", () => {
  test("takes its connections along and is replaced", async () => {
    const proxy = await own(ProxyProcess.start(file()));
    const before = await askBoth(proxy);
    await get(proxy.forward, "http://thread.test/exit").catch(() => undefined);
    const line = await proxy.log(({ msg }) => msg.startsWith("a thread has ended"));
    expect(line).toMatchObject({ level: "error", code: 7 });
    await proxy.log(({ msg }) => msg.startsWith("a thread serves in place"));
    const after = await askBoth(proxy);
    expect([...after].filter((thread) => before.has(thread))).toHaveLength(1);
    expect(await proxy.metric("authbridge_threads_ended_total")).toBe(1);
    expect(await proxy.health("/readyz")).toMatchObject({ status: 200 });
    // The one that replaced it is one that is reloaded.
    await proxy.reload(file({ word: "later" }));
    for (let count = 0; count < 12; count += 1)
      expect(await ask(proxy)).toMatchObject({ word: "later" });
  });

  test("again and again ends the process, which says so", async () => {
    const proxy = await own(ProxyProcess.start(file()));
    const ended = await eventually(async () => {
      await get(proxy.forward, "http://thread.test/exit").catch(() => undefined);
      return !proxy.isAlive;
    }, 60_000);
    expect(ended).toBe(true);
    const { code, stderr } = await proxy.ended;
    expect(code).toBe(1);
    expect(stderr).toContain("threads have ended within");
  }, 70_000);
});

describe("SIGTERM", () => {
  test("lets the tunnels of both threads go on until the limit, and exits 0", async () => {
    const far = await own(TcpOrigin.start(() => undefined));
    const plugins = { pipeline: { outbound: { plugins: [], default: "allow" } } };
    const proxy = await own(
      ProxyProcess.start(file({}, merge(plugins, { limits: { drain_timeout: "1s" } }))),
    );
    const open = async () => openTunnel(proxy.forward, `127.0.0.1:${far.port}`);
    const tunnels = await Promise.all(Array.from({ length: 8 }, open));
    for (const { answer } of tunnels) expect(answer.status).toBe(200);
    const { code } = await proxy.stop();
    expect(code).toBe(0);
    const lines = proxy.logs.filter(({ msg, method }) => msg === "flow" && method === "CONNECT");
    expect(lines).toHaveLength(tunnels.length);
  });
});
