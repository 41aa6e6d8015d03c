/** Handles that stand for tokens, in the store of `state`: good at every replica, sealed, and gone with the login. */
import { randomBytes, randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { type RawResponse, request } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";

const own = owner();
const newKey = (): string => randomBytes(32).toString("base64");
let agent: HttpOrigin;
let idp: StubIdp;

beforeAll(async () => {
  agent = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
});

function file(state: Settings, config: Settings = {}): Settings {
  const inbound = {
    name: "jwt-validation",
    config: {
      issuer: idp.issuer,
      audience: "agent",
      placeholder_mode: true,
      backchannel_logout: true,
      ...config,
    },
  };
  const outbound = {
    name: "token-exchange",
    config: {
      token_url: idp.tokenUrl,
      identity: { type: "client-secret", client_id: "a", client_secret: "b" },
      default_policy: "exchange",
      resolve_placeholders: true,
    },
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

const call = (proxy: ProxyProcess, token: string): Promise<RawResponse> =>
  request(proxy.reverse, { target: "/in", headers: { Authorization: `Bearer ${token}` } });

/** Sends a token in, and returns the handle that the agent got. */
async function handleOf(proxy: ProxyProcess, token: string): Promise<string> {
  const before = agent.requests.length;
  expect((await call(proxy, token)).status).toBe(200);
  const handle = agent.requests[before]?.header("authorization")?.split(" ")[1] ?? "";
  expect(handle).toMatch(/^abph_/);
  return handle;
}

const goOut = (proxy: ProxyProcess, handle: string): Promise<RawResponse> =>
  request(proxy.forward, {
    target: `http://api.test:${agent.port}/out`,
    headers: { Authorization: `Bearer ${handle}` },
  });

/** Tokens that the token endpoint was asked to exchange. */
const exchanged = (): (string | null)[] =>
  idp.tokenCalls.map(({ form }) => form.get("subject_token"));

const subjectToken = (): Promise<string> => idp.token({ claims: { sub: `user-${randomUUID()}` } });

describe.skipIf(!hasRedis)("replicas on one server", () => {
  async function two(config: Settings = {}, keys: string | undefined = newKey()) {
    const redis = await own(RedisServer.start());
    const state = {
      store: "redis",
      url: redis.url,
      timeout: "5s",
      ...(keys === "" ? {} : { encryption_key_file: "keys" }),
    };
    const start = (): Promise<ProxyProcess> =>
      own(ProxyProcess.start(file(state, config), { files: { keys } }));
    const [one, other] = await Promise.all([start(), start()]);
    return { redis, one, other };
  }

  test("a handle of one is good at the other, and nobody reads the token in the store", async () => {
    const { redis, one, other } = await two();
    const token = await subjectToken();
    const handle = await handleOf(one, token);
    expect((await goOut(other, handle)).status).toBe(200);
    expect(exchanged()).toContain(token);
    expect((await goOut(other, `${handle.slice(0, -1)}-`)).status).toBe(401);
    const found = await redis.command("EVAL \"return redis.call('KEYS','*placeholder:*')[1]\" 0");
    const name = found.split("\r\n")[1] ?? "";
    expect(name).not.toContain(handle);
    const kept = await redis.command(`GET ${name}`);
    expect(kept).toContain("s1.");
    expect(kept).not.toContain(token.slice(0, 40));
  });

  test("a handle outlives the key that sealed it, where the file still has the key", async () => {
    const [before, after] = [newKey(), newKey()];
    const { one, other } = await two({}, before);
    const token = await subjectToken();
    const handle = await handleOf(one, token);
    await writeFile(other.path("keys"), `${after}\n${before}\n`);
    await eventually(async () => (await goOut(other, handle)).status === 200);
    await writeFile(other.path("keys"), `${after}\n`);
    // What has been resolved once is known; each handle is new to the other replica.
    await eventually(async () => (await goOut(other, await handleOf(one, token))).status === 401);
  });

  test("a logout takes handles along, those of a replica that is gone as well", async () => {
    const { one, other } = await two();
    const sub = `user-${randomUUID()}`;
    const handle = await handleOf(one, await idp.token({ claims: { sub } }));
    one.signal("SIGKILL");
    await one.ended;
    const logout = await idp.token({
      header: { typ: "logout+jwt" },
      claims: {
        sub,
        jti: randomUUID(),
        events: { "http://schemas.openid.net/event/backchannel-logout": {} },
      },
      without: ["azp", "scope"],
    });
    const to = other.address("stats");
    const answer = await request(to, {
      method: "POST",
      target: "/backchannel-logout",
      headers: {
        Host: `${to.host}:${to.port}`,
        "Content-Type": "application/x-www-form-urlencoded",
      },
      body: new URLSearchParams({ logout_token: logout }).toString(),
    });
    expect(answer.status).toBe(200);
    expect((await goOut(other, handle)).status).toBe(401);
  });

  test.each(["refuse", "local"])("killed, with placeholders_when_away: %s", async (word) => {
    const { redis, one, other } = await two({
      placeholders_when_away: word,
      logins_when_away: "local",
    });
    const token = await subjectToken();
    const early = await handleOf(one, token);
    await redis.kill();
    await one.log(({ msg }) => msg === "the state store is away");
    expect((await goOut(one, early)).status).toBe(200);
    const unknown = await goOut(other, early);
    expect([unknown.status, unknown.text]).toEqual([503, expect.stringContaining("state store")]);
    if (word === "local") {
      expect((await goOut(one, await handleOf(one, token))).status).toBe(200);
    } else {
      const answer = await call(one, token);
      expect(answer.status).toBe(503);
      expect(answer.json()).toMatchObject({
        error: "state.unavailable",
        message: expect.stringContaining("placeholders_when_away"),
      });
    }
  });

  test("without a key no token is kept there, and the log says so", async () => {
    const { redis, one, other } = await two({}, "");
    const handle = await handleOf(one, await subjectToken());
    expect((await goOut(one, handle)).status).toBe(200);
    expect((await goOut(other, handle)).status).toBe(401);
    expect(await redis.command("KEYS *placeholder:*")).toMatch(/^\*0/);
    const said = await one.log(({ msg }) => msg.includes("state.encryption_key_file"));
    expect(said).toMatchObject({ level: "warn" });
  });
});
