/** DPoP proofs that are used up in the store of `state`: once for all replicas, and over a restart. */
import { readFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { DpopKey } from "../support/dpop.ts";
import { eventually } from "../support/eventually.ts";
import { type RawResponse, request } from "../support/http-client.ts";
import type { Field } from "../support/http-message.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { inbound, merge, ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";

const own = owner();
let agent: HttpOrigin;
let idp: StubIdp;
let key: DpopKey;
/** Where clients believe the agent to be, whichever replica answers. */
const place = "https://agent.example";

beforeAll(async () => {
  agent = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
  key = await DpopKey.make();
});

function file(state: Settings, dpop: object = {}): Settings {
  const config = {
    issuer: idp.issuer,
    audience: "agent",
    dpop: { public_urls: [place], ...dpop },
  };
  return merge(
    settings({ state, listener: { reverse_proxy_backend: agent.url, roles: ["reverse"] } }),
    inbound({ name: "jwt-validation", config }),
  );
}

async function proven(): Promise<Field[]> {
  const token = await idp.token({ claims: { cnf: key.cnf } });
  const proof = await key.proof({ url: `${place}/call`, token });
  return [
    ["Host", "agent.example"],
    ["Authorization", `DPoP ${token}`],
    ["DPoP", proof],
  ];
}

const call = (proxy: ProxyProcess, headers: Field[]): Promise<RawResponse> =>
  request(proxy.reverse, { target: "/call", headers });

test("with a file, a proof that was used is used after kill -9", async () => {
  const state = { store: "file", path: "state.log" };
  const first = await own(ProxyProcess.start(file(state)));
  const headers = await proven();
  expect((await call(first, headers)).status).toBe(200);
  const files = { "state.log": await readFile(first.path("state.log"), "utf8") };
  first.signal("SIGKILL");
  await first.ended;
  const second = await own(ProxyProcess.start(file(state), { files }));
  expect((await call(second, headers)).text).toContain("proof_replayed");
});

describe.skipIf(!hasRedis)("two proxies on one server", () => {
  async function two(dpop: object = {}) {
    const redis = await own(RedisServer.start());
    const state = { store: "redis", url: redis.url, timeout: "5s" };
    const proxies = await Promise.all([
      own(ProxyProcess.start(file(state, dpop))),
      own(ProxyProcess.start(file(state, dpop))),
    ]);
    return { redis, proxies };
  }

  test("a proof is good for one of a hundred requests at once, whichever replica they reach", async () => {
    const { proxies } = await two();
    const [one, other] = proxies;
    const headers = await proven();
    const answers = await Promise.all(
      Array.from({ length: 100 }, async (_, at) => call(at % 2 === 0 ? one : other, headers)),
    );
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(answers.filter(({ text }) => text.includes("proof_replayed"))).toHaveLength(99);
  });

  test("emptied in the middle: the replica that took a proof takes it no more", async () => {
    const { redis, proxies } = await two();
    const [one] = proxies;
    const headers = await proven();
    expect((await call(one, headers)).status).toBe(200);
    await redis.flush();
    const again = await Promise.all(Array.from({ length: 12 }, () => call(one, headers)));
    expect(again.filter(({ text }) => text.includes("proof_replayed"))).toHaveLength(12);
  });

  test("hung: refused within the limit of the store, and taken when it goes on", async () => {
    const { redis, proxies } = await two();
    const [one, other] = proxies;
    redis.hang();
    const refused = await call(one, await proven());
    expect(refused.status).toBe(503);
    expect(refused.json()).toMatchObject({ error: "state.unavailable" });
    redis.goOn();
    const headers = await eventually(async () => {
      const fresh = await proven();
      return (await call(one, fresh)).status === 200 && fresh;
    });
    expect((await call(other, headers)).text).toContain("proof_replayed");
  });

  test.each(["refuse", "local"])("killed, with proofs_when_away: %s", async (word) => {
    const { redis, proxies } = await two({ proofs_when_away: word });
    const [one] = proxies;
    await redis.kill();
    await one.log(({ msg }) => msg === "the state store is away");
    const headers = await proven();
    const answer = await call(one, headers);
    if (word === "local") {
      expect(answer.status, answer.text).toBe(200);
      expect((await call(one, headers)).text).toContain("proof_replayed");
    } else {
      expect(answer.status).toBe(503);
      expect(answer.json()).toMatchObject({
        error: "state.unavailable",
        message: expect.stringContaining("dpop.proofs_when_away"),
      });
    }
  });
});
