/** Exchanged tokens in the store of `state`: what one replica was issued the others do not ask for. */
import { randomBytes, randomUUID } from "node:crypto";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type RawResponse, request } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";

const own = owner();
let origin: HttpOrigin;
let idp: StubIdp;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
});
beforeEach(() => {
  idp.tokenCalls.length = 0;
  let issued = 0;
  idp.issue = () => {
    issued += 1;
    return { access_token: `issued-${issued}`, token_type: "Bearer", expires_in: 300 };
  };
});

function file(state: Settings): Settings {
  const config = {
    token_url: idp.tokenUrl,
    identity: { type: "client-secret", client_id: "a", client_secret: "b" },
    default_policy: "exchange",
    share_tokens: true,
  };
  return merge(settings({ state }), outbound({ name: "token-exchange", config }));
}

const call = (proxy: ProxyProcess, token: string): Promise<RawResponse> =>
  request(proxy.forward, {
    target: `${origin.url}/x`,
    headers: { Authorization: `Bearer ${token}` },
  });

const sent = (): (string | undefined)[] =>
  origin.requests.slice(-2).map((one) => one.header("authorization"));

test("without a key to seal tokens with it does not start", async () => {
  const started = ProxyProcess.start(file({ store: "file", path: "state.log" }));
  await expect(started).rejects.toThrow(/share_tokens needs .*state\.encryption_key_file/);
});

describe.skipIf(!hasRedis)("two proxies on one server", () => {
  async function two() {
    const redis = await own(RedisServer.start());
    const state = { store: "redis", url: redis.url, timeout: "5s", encryption_key_file: "keys" };
    const files = { keys: randomBytes(32).toString("base64") };
    const start = (): Promise<ProxyProcess> => own(ProxyProcess.start(file(state), { files }));
    const [one, other] = await Promise.all([start(), start()]);
    return { redis, one, other };
  }

  test("one asks, both use it, and nobody reads it in the store", async () => {
    const { redis, one, other } = await two();
    const token = await idp.token({ claims: { sub: randomUUID() } });
    for (const proxy of [one, other]) expect((await call(proxy, token)).status).toBe(200);
    expect(sent()).toEqual(["Bearer issued-1", "Bearer issued-1"]);
    expect(idp.tokenCalls).toHaveLength(1);
    const found = await redis.command("EVAL \"return redis.call('KEYS','*token:*')[1]\" 0");
    const kept = await redis.command(`GET ${found.split("\r\n")[1] ?? ""}`);
    expect(kept).toContain("s1.");
    expect(kept).not.toContain("issued-1");
    // Of an opaque token nobody could tell whose login it is of.
    for (const proxy of [one, other]) await call(proxy, "opaque");
    expect(idp.tokenCalls).toHaveLength(3);
  });

  test("emptied or killed, the endpoint is asked", async () => {
    const { redis, one, other } = await two();
    const token = await idp.token({ claims: { sub: randomUUID() } });
    await call(one, token);
    await redis.flush();
    expect((await call(other, token)).status).toBe(200);
    expect(idp.tokenCalls).toHaveLength(2);
    await redis.kill();
    await other.log(({ msg }) => msg === "the state store is away");
    const next = await idp.token({ claims: { sub: randomUUID() } });
    expect((await call(other, next)).status).toBe(200);
    expect(idp.tokenCalls).toHaveLength(3);
  });
});
