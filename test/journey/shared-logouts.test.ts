/** Logins that ended, in the store of `state`: every replica hears of them, those that were away later. */
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { RawClient, type RawResponse, request } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type Settings, testThreads } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";

const own = owner();
const event = "http://schemas.openid.net/event/backchannel-logout";
const identity = { type: "client-secret", client_id: "agent", client_secret: "agent-secret" };
let agent: HttpOrigin;
let idp: StubIdp;

beforeAll(async () => {
  agent = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
  idp.issue = () => ({ access_token: "exchanged", token_type: "Bearer", expires_in: 300 });
});

function file(state: Settings, config: Settings = {}): Settings {
  const inbound = {
    name: "jwt-validation",
    config: { issuer: idp.issuer, audience: "agent", backchannel_logout: true, ...config },
  };
  const outbound = {
    name: "token-exchange",
    config: { token_url: idp.tokenUrl, identity, default_policy: "exchange" },
  };
  return merge(
    settings({
      state,
      listener: { reverse_proxy_backend: agent.url, roles: ["reverse", "forward"] },
      egress: { hosts: { "api.test": ["127.0.0.1"] } },
    }),
    { pipeline: { inbound: { plugins: [inbound] }, outbound: { plugins: [outbound] } } },
  );
}

const comeIn = (proxy: ProxyProcess, token: string): Promise<RawResponse> =>
  request(proxy.reverse, { target: "/in", headers: { Authorization: `Bearer ${token}` } });

/** Calls a tool, and returns how often the token endpoint has been asked for this token. */
async function goOut(proxy: ProxyProcess, token: string): Promise<number> {
  const headers = { Authorization: `Bearer ${token}` };
  const answer = await request(proxy.forward, {
    target: `http://api.test:${agent.port}/out`,
    headers,
  });
  expect(answer.status, answer.text).toBe(200);
  return idp.tokenCalls.filter(({ form }) => form.get("subject_token") === token).length;
}

const logoutToken = (sub: string): Promise<string> =>
  idp.token({
    header: { typ: "logout+jwt" },
    claims: { jti: randomUUID(), events: { [event]: {} }, sub },
    without: ["azp", "scope"],
  });

function send(proxy: ProxyProcess, logout: string): Promise<RawResponse> {
  const to = proxy.address("stats");
  return request(to, {
    method: "POST",
    target: "/backchannel-logout",
    headers: {
      Host: `${to.host}:${to.port}`,
      "Content-Type": "application/x-www-form-urlencoded",
    },
    body: new URLSearchParams({ logout_token: logout }).toString(),
  });
}

const newName = (): string => `user-${randomUUID()}`;

test("with a file, a login that ended has ended after kill -9", async () => {
  const state = { store: "file", path: "state.log" };
  const first = await own(ProxyProcess.start(file(state)));
  const sub = newName();
  const token = await idp.token({ claims: { sub } });
  expect((await send(first, await logoutToken(sub))).status).toBe(200);
  const files = { "state.log": await readFile(first.path("state.log"), "utf8") };
  first.signal("SIGKILL");
  await first.ended;
  const second = await own(ProxyProcess.start(file(state), { files }));
  expect((await comeIn(second, token)).status).toBe(401);
  expect((await comeIn(second, await idp.token({ claims: { sub: newName() } }))).status).toBe(200);
});

describe.skipIf(!hasRedis)("replicas on one server", () => {
  async function two(config: Settings = {}) {
    const redis = await own(RedisServer.start());
    const block = { store: "redis", url: redis.url, timeout: "5s" };
    const start = (state: Settings = block): Promise<ProxyProcess> =>
      own(ProxyProcess.start(file(state, config)));
    const [one, other] = await Promise.all([start(), start()]);
    return { redis, one, other, start, block };
  }

  test("hear of it: tokens are refused, what was exchanged is dropped, what is open is closed", async () => {
    const { one, other, start } = await two();
    const sub = newName();
    const token = await idp.token({ claims: { sub } });
    const bystander = await idp.token({ claims: { sub: newName() } });
    for (const proxy of [one, other]) {
      expect((await comeIn(proxy, token)).status).toBe(200);
      expect((await comeIn(proxy, bystander)).status).toBe(200);
    }
    const asked = await goOut(other, token);
    expect(await goOut(other, token)).toBe(asked);
    agent.answerHead = (head, connection) => {
      if (!head.startLine.includes("/upgraded")) return false;
      void connection.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: custom/1\r\n\r\n",
      );
      return true;
    };
    const client = await own(RawClient.connect(other.reverse));
    client.write({
      target: "/upgraded",
      headers: [
        ["Authorization", `Bearer ${token}`],
        ["Connection", "Upgrade"],
        ["Upgrade", "custom/1"],
      ],
    });
    expect((await client.head()).head.startLine).toContain(" 101 ");
    const logout = await logoutToken(sub);
    expect((await send(one, logout)).status).toBe(200);
    await client.untilClosed();
    expect((await comeIn(other, token)).status).toBe(401);
    expect(await goOut(other, token)).toBe(asked + 1);
    expect((await comeIn(other, bystander)).status).toBe(200);
    const heard = await other.metric("authbridge_logouts_total", { result: "heard" });
    expect(heard).toBe(testThreads);
    expect((await send(other, logout)).json()).toMatchObject({ error_description: "replayed" });
    const late = await start();
    expect((await comeIn(late, token)).status).toBe(401);
  });

  test("emptied: those who heard of it do not forget it, and go on hearing", async () => {
    const { redis, one, other } = await two();
    const [first, second] = [newName(), newName()];
    const tokens = await Promise.all([first, second].map((sub) => idp.token({ claims: { sub } })));
    const [token = "", next = ""] = tokens;
    await send(one, await logoutToken(first));
    await eventually(async () => (await comeIn(other, token)).status === 401);
    await redis.flush();
    await send(one, await logoutToken(second));
    await eventually(async () => (await comeIn(other, next)).status === 401);
    expect((await comeIn(other, token)).status).toBe(401);
  });

  test("a store that hangs, and one that is killed: tokens are refused, and what ended is told when it is back", async () => {
    const { redis, one, other, block } = await two();
    const quick = { ...block, timeout: "250ms" };
    const third = await own(ProxyProcess.start(file(quick)));
    const sub = newName();
    const token = await idp.token({ claims: { sub } });
    expect((await comeIn(third, token)).status).toBe(200);
    redis.hang();
    const refused = await eventually(async () => {
      const answer = await comeIn(third, token);
      return answer.status === 503 && answer;
    });
    expect(refused.json()).toMatchObject({
      error: "state.unavailable",
      message: expect.stringContaining("logins_when_away"),
    });
    const counted = { plugin: "jwt-validation", event: "state_away" };
    expect(await third.metric("authbridge_plugin_events_total", counted)).toBeGreaterThan(0);
    redis.goOn();
    await eventually(async () => (await comeIn(third, token)).status === 200);
    await redis.kill();
    await one.log(({ msg }) => msg === "the state store is away");
    expect((await send(one, await logoutToken(sub))).status).toBe(200);
    await one.log(({ msg }) => msg === "other replicas are told of logouts later");
    await redis.restart();
    await one.log(({ msg }) => msg === "other replicas have been told of all logouts");
    for (const proxy of [one, other, third]) {
      await eventually(async () => (await comeIn(proxy, token)).status === 401);
    }
  });

  test("killed, with logins_when_away: local", async () => {
    const { redis, one } = await two({ logins_when_away: "local" });
    const [ended, other] = [newName(), newName()];
    const token = await idp.token({ claims: { sub: ended } });
    await redis.kill();
    await one.log(({ msg }) => msg === "the state store is away");
    expect((await send(one, await logoutToken(ended))).status).toBe(200);
    expect((await comeIn(one, token)).status).toBe(401);
    expect((await comeIn(one, await idp.token({ claims: { sub: other } }))).status).toBe(200);
  });

  test("with a key, nobody reads in the store whose login it was", async () => {
    const redis = await own(RedisServer.start());
    const files = { keys: "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY=" };
    const state = { store: "redis", url: redis.url, encryption_key_file: "keys" };
    const proxy = await own(ProxyProcess.start(file(state), { files }));
    const sub = newName();
    expect((await send(proxy, await logoutToken(sub))).status).toBe(200);
    const kept = await redis.command("GET authbridge:feed:logouts:1");
    expect(kept).toContain("s1.");
    expect(kept).not.toContain(sub);
  });
});
