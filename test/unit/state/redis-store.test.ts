/** The Redis store against a real server: killed, hung, emptied, with TLS, with an ACL. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { ProxyError } from "../../../src/errors.ts";
import type { RedisPlace } from "../../../src/state/redis-client.ts";
import { RedisStore } from "../../../src/state/redis-store.ts";
import { TestAuthority } from "../../support/certs.ts";
import { eventually } from "../../support/eventually.ts";
import { freePort } from "../../support/free-port.ts";
import { TcpOrigin } from "../../support/origin.ts";
import { hasRedis, RedisServer } from "../../support/redis.ts";
import { redisPlace } from "../../support/redis-place.ts";

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function serve(...args: string[]): Promise<RedisServer> {
  const server = await RedisServer.start(...args);
  closing.push(() => server.close());
  return server;
}

interface Watched {
  readonly store: RedisStore;
  readonly states: (string | undefined)[];
  readonly restored: number[];
}

async function watched(place: RedisPlace, timeoutMs = 10_000): Promise<Watched> {
  const states: (string | undefined)[] = [];
  const restored: number[] = [];
  const store = new RedisStore({
    place,
    prefix: "t:",
    timeoutMs,
    onState: (problem) => void states.push(problem),
    onRestored: (counters) => void restored.push(counters),
  });
  closing.push(() => store.close());
  await store.open();
  return { store, states, restored };
}

const codeOf = async (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => "none",
    (error: unknown) => (error instanceof ProxyError ? error.code : String(error)),
  );

test("a store that is closed before it is open connects to nobody", async () => {
  const server = await TcpOrigin.start(() => undefined);
  closing.push(() => server.close());
  const place = redisPlace(`redis://127.0.0.1:${server.port}`);
  const store = new RedisStore({ place, prefix: "t:", timeoutMs: 100 });
  const opening = store.open();
  await store.close();
  await opening;
  expect(server.connections).toHaveLength(0);
});

describe.skipIf(!hasRedis)("a store in Redis", () => {
  test("a server that is killed is away, and one that comes back is used again", async () => {
    const server = await serve();
    const { store, states } = await watched(redisPlace(server.url));
    await store.set("k", "v");
    await server.kill();
    await eventually(async () => (await codeOf(store.get("k"))) === "state.unavailable");
    await server.restart();
    await eventually(async () => (await codeOf(store.set("k", "again"))) === "none");
    expect(await store.get("k")).toBe("again");
    expect(states.map((problem) => problem === undefined)).toEqual([false, true]);
  });

  test("a server that was not there at the start is found later", async () => {
    const port = await freePort();
    const { store } = await watched(redisPlace(`redis://127.0.0.1:${port}`), 500);
    expect(await codeOf(store.get("k"))).toBe("state.unavailable");
  });

  test("a server that hangs costs one limit, not one a call, and what it does late is taken back", async () => {
    const server = await serve();
    const { store, states } = await watched(redisPlace(server.url), 300);
    await store.add([{ key: "n", by: 1 }]);
    server.hang();
    expect(await codeOf(store.add([{ key: "n", by: 5 }]))).toBe("state.unavailable");
    // From here on nothing is sent: each of these would have been counted as well.
    for (let at = 0; at < 100; at += 1) {
      expect(await codeOf(store.add([{ key: "n", by: 7 }]))).toBe("state.unavailable");
    }
    server.goOn();
    await eventually(() => states.at(-1) === undefined);
    await eventually(async () => (await store.add([{ key: "n", by: 0 }])).values[0] === 1);
  });

  test.each([["who saw more comes first"], ["who saw less comes first"]])(
    "counters that a flush took away are put back to what was seen: %s",
    async (order) => {
      const server = await serve();
      const one = await watched(redisPlace(server.url));
      const other = await watched(redisPlace(server.url));
      await one.store.add([{ key: "n", by: 6, below: 10 }]);
      await other.store.add([{ key: "n", by: 2, below: 10 }]);
      // What the first one saw is not the last word: the second one has given some back.
      await other.store.add([{ key: "n", by: -1 }]);
      for (let round = 0; round < 2; round += 1) {
        await server.flush();
        const both = order.startsWith("who saw more") ? [other, one] : [one, other];
        for (const { store } of both) await store.add([{ key: "n", by: 1 }]);
      }
      expect((await one.store.add([{ key: "n", by: 0 }])).values).toEqual([7 + 4]);
      expect(one.restored.length + other.restored.length).toBeGreaterThanOrEqual(2);
    },
  );

  test("keys have the prefix and an end", async () => {
    const server = await serve();
    const { store } = await watched(redisPlace(server.url));
    await store.set("k", "v", 60_000);
    expect(await server.command("GET t:k")).toContain("v");
    expect(await server.command("PTTL t:k")).toMatch(/^:[1-9]\d+/);
  });

  test("a user of the ACL comes in with name and password, and nobody without", async () => {
    const server = await serve(
      ..."--user default off --user proxy on >geheim ~t:* &t:* +@all".split(" "),
    );
    const inside = await watched(
      redisPlace(server.url, { credentials: () => ({ username: "proxy", password: "geheim" }) }),
    );
    await inside.store.set("k", "v");
    expect(await inside.store.get("k")).toBe("v");
    const outside = await watched(redisPlace(server.url), 1_000);
    expect(await codeOf(outside.store.get("k"))).toBe("state.unavailable");
  });

  test("a cluster: keys of one tag are counted in one step", async () => {
    const server = await serve("--cluster-enabled", "yes");
    await server.command("CLUSTER ADDSLOTSRANGE 0 16383");
    await eventually(async () => (await server.command("CLUSTER INFO")).includes("state:ok"));
    const { store } = await watched(redisPlace(server.url, { isCluster: true }));
    await store.set("k", "v");
    expect(await store.get("k")).toBe("v");
    const two = ["{tag}a", "{tag}b"].map((key) => ({ key, by: 2 }));
    expect((await store.add(two)).values).toEqual([2, 2]);
    expect(await store.compareAndSet("k", "v", "w")).toBe(true);
  });

  test("sentinels name the server", async () => {
    const server = await serve();
    const sentinel = await RedisServer.sentinel("state", server.port);
    closing.push(() => sentinel.close());
    const { store } = await watched(redisPlace(`${sentinel.url}/3`, { sentinelName: "state" }));
    await store.set("k", "v");
    expect(await store.get("k")).toBe("v");
    expect(await server.command("INFO keyspace")).toContain("db3:keys=1");
    expect((await store.add([{ key: "n", by: 2 }])).values).toEqual([2]);
  });

  test("TLS: the server's certificate has to be from the authority that is configured", async () => {
    const authority = await TestAuthority.create("redis");
    const { cert, key } = await authority.server(["redis.test"]);
    const directory = await authority.write();
    const write = async (name: string, text: string): Promise<string> => {
      const { writeFile } = await import("node:fs/promises");
      const path = join(directory, name);
      await writeFile(path, text);
      return path;
    };
    const files = [await write("redis.crt", cert), await write("redis.key", key)];
    const ca = await write("redis-ca.crt", authority.caPem);
    const [certFile = "", keyFile = ""] = files;
    const server = await serve(
      ...`--port 0 --tls-port PORT --tls-cert-file ${certFile} --tls-key-file ${keyFile} --tls-ca-cert-file ${ca} --tls-auth-clients no`.split(
        " ",
      ),
    );
    const url = server.url.replace("redis:", "rediss:");
    const tls = { ca: [readFileSync(ca, "utf8")], servername: "redis.test" };
    const right = await watched(redisPlace(url, { tls }));
    await right.store.set("k", "v");
    expect(await right.store.get("k")).toBe("v");
    const wrong = await watched(redisPlace(url, { tls: { servername: "redis.test" } }), 1_000);
    expect(await codeOf(wrong.store.get("k"))).toBe("state.unavailable");
  });
});
