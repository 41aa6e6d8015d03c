/** Data that leaves in names and targets: what is counted, what is refused, and that no refused name is looked up. */
import { randomBytes } from "node:crypto";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type DnsServer, dnsServer } from "../support/dns-server.ts";
import { eventually } from "../support/eventually.ts";
import { openTunnel, request } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";
import { openSocks } from "../support/socks-client.ts";

const own = owner();
let origin: HttpOrigin;
let dns: DnsServer;
let served = 0;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch(() => reply(200, `${(served += 1)}`)));
});
beforeEach(async () => {
  served = 0;
  dns = await own(dnsServer({ get: () => "127.0.0.1" }));
});

const domains = ["drop", "other", "cdn", "co"].flatMap((name) => [
  `*.${name}.test`,
  `${name}.test`,
]);
const allow = [...domains, "a", "b", "c", "d", "e"].map((name) =>
  name.length === 1 ? `${name}.test` : name,
);
allow.push("127.0.0.1", "::1");

function file(limits: readonly object[], over: Settings = {}): Settings {
  const chain = outbound(
    { name: "egress-policy", config: { allow } },
    { name: "budgets", config: { limits } },
  );
  const closed = merge(chain, { pipeline: { outbound: { default: "deny" } } });
  return merge(settings({ egress: { dns_servers: [dns.address] } }), merge(closed, over));
}

function start(limits: readonly object[], over?: Settings): Promise<ProxyProcess> {
  return own(ProxyProcess.start(file(limits, over)));
}

async function get(proxy: ProxyProcess, host: string, path = "/"): Promise<number> {
  const authority = `${host}:${origin.port}`;
  const target = `http://${authority}${path}`;
  return (await request(proxy.forward, { target, headers: { Host: authority } })).status;
}

async function connect(proxy: ProxyProcess, host: string): Promise<number> {
  const { client, answer } = await openTunnel(proxy.forward, `${host}:${origin.port}`);
  await own(client);
  return answer.status;
}

const secret = (length = 20): string => randomBytes(length).toString("hex");
const names = (count: number): string[] =>
  Array.from({ length: count }, () => `${secret()}.drop.test`);

/** A hundred at a time, each at the next proxy. */
async function all(
  proxies: readonly ProxyProcess[],
  hosts: readonly string[],
  visit: (proxy: ProxyProcess, host: string) => Promise<number> = get,
): Promise<number[]> {
  const statuses: number[] = [];
  for (let from = 0; from < hosts.length; from += 100) {
    const some = hosts.slice(from, from + 100).map(async (host, at) => {
      const proxy = proxies[at % proxies.length];
      return proxy === undefined ? 0 : visit(proxy, host);
    });
    statuses.push(...(await Promise.all(some)));
  }
  return statuses;
}

const count = (statuses: readonly number[], status: number): number =>
  statuses.filter((one) => one === status).length;

const shown = async (proxy: ProxyProcess): Promise<string> =>
  (await proxy.sessions("/v1/budgets")).text;

describe("names below a domain", () => {
  const limit = {
    name: "names",
    unit: "subdomains",
    limit: 20,
    window: "hour",
    hosts: ["*.drop.test"],
    by: ["caller"],
  };

  test("a thousand random ones: as many go out as the limit says, and no other is looked up", async () => {
    const proxy = await start([limit]);
    const statuses = await all([proxy], names(1_000));
    expect([count(statuses, 200), count(statuses, 429), served]).toEqual([20, 980, 20]);
    expect(dns.asked.size).toBe(20);
    expect(await proxy.metric("authbridge_plugin_events_total", { event: "exceeded" })).toBe(980);
    const [known = ""] = dns.asked;
    expect([await get(proxy, known), await get(proxy, "other.test")]).toEqual([200, 200]);
    expect(JSON.parse(await shown(proxy))).toMatchObject({
      instances: [{ budgets: { limits: [{ budget: "names", domain: "drop.test", used: 20 }] } }],
    });
  });

  test("on every way out: a CONNECT and SOCKS are refused before the name is looked up", async () => {
    const proxy = await start([{ ...limit, limit: 1 }]);
    expect(await get(proxy, "one.drop.test")).toBe(200);
    const [plain = "", tunnel = "", socks = ""] = names(3);
    expect([await get(proxy, plain), await connect(proxy, tunnel)]).toEqual([429, 429]);
    const opened = await openSocks(proxy.forward, socks, origin.port);
    await own(opened.client);
    expect(opened.reply).not.toBe(0);
    expect(await connect(proxy, "one.drop.test")).toBe(200);
    expect([...dns.asked]).toEqual(["one.drop.test"]);
  });

  test("one name in several spellings is one, and each domain has its own", async () => {
    const { hosts: _, ...everywhere } = limit;
    const proxy = await start([{ ...everywhere, limit: 1 }]);
    const spellings = ["a.drop.test", "A.Drop.TEST", "a.drop.test.", "drop.test", "a.other.test"];
    expect(await all([proxy], spellings)).toEqual([200, 200, 200, 200, 200]);
    expect(await all([proxy], ["b.drop.test", "b.other.test", "x.co.test"])).toEqual([
      429, 429, 200,
    ]);
  });

  test("two threads agree", async () => {
    const proxy = await start([limit], { workers: 2 });
    const statuses = await all([proxy], names(200));
    expect([count(statuses, 200), count(statuses, 429), dns.asked.size]).toEqual([20, 180, 20]);
  });

  test.skipIf(!hasRedis)("two replicas agree", async () => {
    const server = await own(RedisServer.start());
    const state = { state: { store: "redis", url: server.url, timeout: "5s" } };
    const two = await Promise.all([start([limit], state), start([limit], state)]);
    const statuses = await all(two, names(200));
    expect([count(statuses, 200), count(statuses, 429), dns.asked.size]).toEqual([20, 180, 20]);
    const again = [...dns.asked];
    expect(count(await all(two, again), 200)).toBe(20);
  });
});

describe("hosts", () => {
  const limit = { name: "hosts", unit: "hosts", limit: 3, window: "day", by: ["caller"] };
  const hosts = ["a.test", "b.test", "c.test", "d.test"];

  test("distinct ones, whatever the port; those that were seen before go on", async () => {
    const proxy = await start([limit]);
    expect(await all([proxy], ["127.0.0.1", "127.0.0.1", "127.1", "0x7f.1"])).toEqual([
      200, 200, 200, 200,
    ]);
    expect([await get(proxy, "a.test"), await connect(proxy, "b.test")]).toEqual([200, 200]);
    expect(await all([proxy], ["c.test", "[::1]"])).toEqual([429, 429]);
    expect([await get(proxy, "a.test"), await connect(proxy, "127.0.0.1")]).toEqual([200, 200]);
    expect(dns.asked).toEqual(new Set(["a.test", "b.test"]));
  });

  test("soft: they pass, are counted, and the response says so", async () => {
    const proxy = await start([{ ...limit, mode: "soft" }]);
    expect(await all([proxy], hosts)).toEqual([200, 200, 200, 200]);
    const authority = `e.test:${origin.port}`;
    const answer = await request(proxy.forward, {
      target: `http://${authority}/`,
      headers: { Host: authority },
    });
    expect([answer.status, answer.header("x-budget-exceeded")]).toEqual([200, "hosts"]);
    expect(await shown(proxy)).toContain('"used":5,"limit":3');
  });

  test("refuses: all, from the first host too many on everything is refused", async () => {
    const proxy = await start([{ ...limit, refuses: "all" }]);
    expect(await all([proxy], hosts.slice(0, 3))).toEqual([200, 200, 200]);
    expect(await get(proxy, "a.test")).toBe(200);
    expect(await get(proxy, "d.test")).toBe(429);
    await eventually(async () => (await get(proxy, "a.test")) === 429);
  });
});

describe("bits", () => {
  test("of names: words are cheap, data is not, and what is refused is not looked up", async () => {
    const limit = {
      name: "bits",
      unit: "name_entropy",
      limit: 500,
      window: "hour",
      by: ["domain"],
    };
    const proxy = await start([limit]);
    const plain = ["www", "api", "static", "images-eu", "registry"].map(
      (name) => `${name}.cdn.test`,
    );
    expect(await all([proxy], [...plain, ...plain])).toEqual(Array(10).fill(200));
    // 160 bits each.
    const statuses = await all([proxy], names(50));
    expect([count(statuses, 200), count(statuses, 429)]).toEqual([3, 47]);
    expect(dns.asked.size).toBe(plain.length + 3);
  });

  test("of paths and queries: each URL counts once, and never more than there are together", async () => {
    const limit = { name: "bits", unit: "url_entropy", limit: 4_000, window: "hour" };
    const proxy = await start([limit]);
    const page = "/items?page=2&limit=50";
    for (const _ of [1, 2, 3]) expect(await get(proxy, "a.test", page)).toBe(200);
    served = 0;
    // 64 bytes in hex are 512 bits, and seven of them are there.
    const statuses = await all([proxy], names(100), (at) =>
      get(at, "a.test", `/q?d=${secret(64)}`),
    );
    expect([count(statuses, 200), count(statuses, 429), served]).toEqual([7, 93, 7]);
    const refused = await request(proxy.forward, {
      target: `http://a.test:${origin.port}/q?d=${secret(64)}`,
      headers: { Host: `a.test:${origin.port}` },
    });
    expect(JSON.parse(refused.text)).toMatchObject({
      error: "budget.exceeded",
      message: expect.stringMatching(
        /^the budget "bits" has not enough left: 3[0-9]{3} of 4000 bits in paths and queries \(hour\), and this takes 5[0-9]{2}; it begins anew at /,
      ),
    });
    expect(await get(proxy, "a.test", page)).toBe(200);
  });

  test("a tunnel to a host that such a limit names is opened or refused", async () => {
    const limit = {
      name: "bits",
      unit: "url_entropy",
      limit: 300,
      window: "hour",
      hosts: ["a.test"],
    };
    const proxy = await start([limit]);
    const { client } = await openTunnel(proxy.forward, `a.test:${origin.port}`);
    await own(client);
    client.send("EHLO there\r\n");
    expect(await client.reader.toEnd()).toHaveLength(0);
    expect(served).toBe(0);
  });
});

test("a limit that no counter could hold is refused at the start", async () => {
  const limit = { name: "h", unit: "hosts", limit: 10_001, window: "day" };
  await expect(start([limit])).rejects.toThrow(
    /limits\[0\]\.limit: must be at most 10000: no more are remembered/,
  );
});
