/** Real proxies under the arrivals that the model of a fleet is given, and what tokens cost them. */
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { request, type RawResponse } from "../test/support/http-client.ts";
import { StubIdp } from "../test/support/idp.ts";
import { HttpOrigin } from "../test/support/origin.ts";
import { type ProxyProcess, settings } from "../test/support/proxy.ts";
import { ProxyProcess as Proxy } from "../test/support/proxy.ts";
import type { Settings } from "../test/support/program.ts";
import { hasRedis, RedisServer } from "../test/support/redis.ts";
import {
  type Arrival,
  arrivals,
  type Balance,
  type Counts,
  randomFrom,
  replay,
  type Workload,
} from "./fleet-model.ts";

const tools = Array.from({ length: 64 }, (_, at) => `t${at}.tool.test`);
const identity = { type: "client-secret", client_id: "bench", client_secret: "bench-secret" };

interface Ground {
  readonly idp: StubIdp;
  readonly origin: HttpOrigin;
  close(): Promise<void>;
}

async function ground(issuedToken: number): Promise<Ground> {
  const idp = await StubIdp.start();
  const origin = await HttpOrigin.launch();
  let issued = 0;
  idp.issue = () => {
    issued += 1;
    return { access_token: `issued-${issued}`, token_type: "Bearer", expires_in: issuedToken };
  };
  return {
    idp,
    origin,
    close: async () => {
      await origin.close();
      await idp.close();
    },
  };
}

function file({ idp, origin }: Ground, over: Settings = {}): Settings {
  const validation = { issuer: idp.issuer, audience: "agent" };
  const exchange = {
    token_url: idp.tokenUrl,
    identity,
    default_policy: "exchange",
    audience_from_host: true,
  };
  return settings({
    listener: { reverse_proxy_backend: origin.url, roles: ["reverse", "forward"] },
    egress: { hosts: Object.fromEntries(tools.map((tool) => [tool, ["127.0.0.1"]])) },
    session: { enabled: false },
    pipeline: {
      inbound: { plugins: [{ name: "jwt-validation", config: validation }] },
      outbound: { plugins: [{ name: "token-exchange", config: exchange }] },
    },
    ...over,
  });
}

function send(
  proxy: ProxyProcess,
  origin: HttpOrigin,
  one: Arrival,
  token: string,
): Promise<RawResponse> {
  const headers = { Authorization: `Bearer ${token}` };
  if (one.direction === "inbound") return request(proxy.reverse, { target: "/in", headers });
  const target = `http://t${one.target}.tool.test:${origin.port}/out`;
  return request(proxy.forward, { target, headers });
}

/** What a process has used of the processors, in milliseconds. */
function cpuOf({ pid }: ProxyProcess): number {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** The model and the proxies under the same messages. */
export interface Checked {
  readonly model: Counts;
  readonly seen: Counts;
  readonly failed: number;
  readonly cpuMs: number;
}

/** Sends the messages of a workload to proxies at their times, and gives the same ones to the model. */
export async function check(
  work: Workload,
  terms: { readonly seconds: number; readonly replicas: number; readonly balance: Balance },
): Promise<Checked> {
  const around = await ground(work.issuedToken);
  const { idp, origin } = around;
  const proxies = await Promise.all(
    Array.from({ length: terms.replicas }, () => Proxy.start(file(around))),
  );
  const messages = [...arrivals(work, terms, randomFrom(7))];
  const tokens = new Map<string, string>();
  for (const { agent, epoch } of messages) {
    const key = `${agent} ${epoch}`;
    if (tokens.has(key)) continue;
    // Its end is its own: a token of the next epoch is another one, and the one before is not sent any more.
    const claims = { sub: `user-${agent}`, jti: key };
    tokens.set(key, await idp.token({ claims }));
  }
  const cpuBefore = proxies.map(cpuOf);
  let failed = 0;
  const began = performance.now();
  const sending: Promise<void>[] = [];
  for (const message of messages) {
    const waitMs = message.at * 1_000 - (performance.now() - began);
    if (waitMs > 1) await delay(waitMs);
    const [proxy = proxies[0]] = [proxies[message.replica]];
    if (proxy === undefined) continue;
    const token = tokens.get(`${message.agent} ${message.epoch}`) ?? "";
    const done = send(proxy, origin, message, token).then(({ status }) => {
      if (status !== 200) failed += 1;
    });
    sending.push(done.catch(() => void (failed += 1)));
  }
  await Promise.all(sending);
  const cpuMs = proxies.reduce((sum, proxy, at) => sum + cpuOf(proxy) - (cpuBefore[at] ?? 0), 0);
  const cached = await Promise.all(
    proxies.map((proxy) =>
      proxy.metric("authbridge_plugin_events_total", {
        plugin: "jwt-validation",
        event: "verified_from_cache",
      }),
    ),
  );
  const inbound = messages.filter(({ direction }) => direction === "inbound").length;
  const seen: Counts = {
    inbound,
    outbound: messages.length - inbound,
    exchanged: idp.tokenCalls.length,
    verified: inbound - cached.reduce((sum, one) => sum + one, 0),
  };
  const model = await replay(work, messages, terms);
  await Promise.all(proxies.map((proxy) => proxy.close()));
  await around.close();
  return { model, seen, failed, cpuMs };
}

/** Sends so many at once for as long as there are some; gives the processor time of one in microseconds. */
async function costOf(
  proxy: ProxyProcess,
  times: number,
  one: (at: number) => Promise<RawResponse>,
) {
  const run = async (from: number, to: number): Promise<void> => {
    let next = from;
    const worker = async (): Promise<void> => {
      for (let at = next++; at < to; at = next++) {
        const { status, text } = await one(at);
        if (status !== 200) throw new Error(`${status} ${text}`);
      }
    };
    await Promise.all(Array.from({ length: 16 }, worker));
  };
  await run(0, times / 2);
  const before = cpuOf(proxy);
  await run(times / 2, times);
  return ((cpuOf(proxy) - before) * 1_000) / (times / 2);
}

/** What tokens and questions to the store cost a proxy beyond the same message without them, in µs of its processor. */
export async function measureTokens(times = 6_000): Promise<Readonly<Record<string, number>>> {
  const around = await ground(300);
  const { idp, origin } = around;
  const tokens = await Promise.all(
    Array.from({ length: times }, (_, at) => idp.token({ claims: { sub: `u${at}` } })),
  );
  const costs: Record<string, number> = {};
  const inbound = {
    direction: "inbound",
    at: 0,
    agent: 0,
    target: 0,
    epoch: 0,
    replica: 0,
  } as const;
  const outbound = { ...inbound, direction: "outbound" } as const;
  const proxy = await Proxy.start(file(around));
  const known = tokens[0] ?? "";
  const hit = await costOf(proxy, times, () => send(proxy, origin, inbound, known));
  const miss = await costOf(proxy, times, (at) => send(proxy, origin, inbound, tokens[at] ?? ""));
  costs["freshJwt"] = miss - hit;
  const cached = await costOf(proxy, times, () => send(proxy, origin, outbound, known));
  const asked = await costOf(proxy, times, (at) => send(proxy, origin, outbound, tokens[at] ?? ""));
  costs["exchange"] = asked - cached;
  await proxy.close();
  if (hasRedis) {
    const redis = await RedisServer.start();
    const limit = { name: "l", unit: "requests", limit: 1_000_000_000, window: "day" };
    for (const [name, lease] of [
      ["budget", 0],
      ["leasedBudget", 0.01],
    ] as const) {
      const plugins = ["inference-parser", { name: "budgets", config: { limits: [limit], lease } }];
      const plain = await Proxy.start(file(around, { pipeline: { outbound: { plugins: [] } } }));
      const counted = await Proxy.start(
        file(around, {
          state: { store: "redis", url: redis.url },
          pipeline: { outbound: { plugins } },
        }),
      );
      const without = await costOf(plain, times, () => send(plain, origin, outbound, known));
      const withBudget = await costOf(counted, times, () => send(counted, origin, outbound, known));
      costs[name] = withBudget - without;
      await Promise.all([plain.close(), counted.close()]);
    }
    await redis.close();
  }
  await around.close();
  return costs;
}
