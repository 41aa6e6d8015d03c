/** The block `state` as an operator meets it: what is refused, what the doctor says, what is seen of an outage. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { leafCertificate } from "../support/client-certificate.ts";
import { eventually } from "../support/eventually.ts";
import { request } from "../support/http-client.ts";
import { owner } from "../support/owner.ts";
import { runWith, type Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";
import { closedPort } from "../support/stub-parent.ts";

const own = owner();
const state = (block: Settings): Settings => settings({ state: block });

describe("a file whose state cannot be used", () => {
  test.each([
    [{ store: "redis" }, "state.url: is required with store: redis"],
    [{ store: "file" }, "state.path: is required with store: file"],
    [{ store: "memory", path: "x" }, "state.path: is not used with store: memory"],
    [
      { store: "redis", url: "redis://u:geheim@localhost" },
      "state.url: has a password in it: put it into the file of password_file",
    ],
    [
      { store: "redis", url: "redis://localhost/0?timeout=5s" },
      "state.url: has a query or a fragment, which nothing reads",
    ],
    [{ store: "redis", url: "http://localhost" }, "must be a redis:// or rediss:// address"],
    [{ store: "redis", url: "redis://localhost", nodes: ["x"] }, "must be host and port"],
    [
      { store: "redis", url: "redis://localhost", nodes: ["x:1"] },
      "state.nodes: needs cluster: true or sentinel_name",
    ],
    [
      { store: "redis", url: "redis://localhost", ca_file: "ca.crt" },
      "state.ca_file: is only used over TLS, with a rediss:// address",
    ],
    [
      { store: "redis", url: "redis://localhost", server_name: "x" },
      "state.server_name: is only used over TLS, with a rediss:// address",
    ],
    [
      { store: "redis", url: "redis://localhost/2", cluster: true },
      "state.url: names a database, and a cluster has only one",
    ],
    [
      { store: "file", path: "x", password_file: "x" },
      "state.password_file: is not used with store: file",
    ],
    [{ cluster: true }, "state.cluster: is not used with store: memory"],
  ])("%j", async (block, message) => {
    const { code, stdout, stderr } = await runWith("check", state(block));
    expect([code, stdout + stderr]).toEqual([2, expect.stringContaining(message)]);
    expect(stdout + stderr).not.toContain("geheim");
  });

  test.each([
    ["password_file", "", "the file is empty"],
    ["encryption_key_file", "too short", "line 1 is not a key of 32 bytes"],
  ])("%s: %j", async (key, text, message) => {
    const block = { store: "redis", url: "redis://127.0.0.1:1", [key]: "secret-file" };
    const files = { "secret-file": text };
    const { code, stderr } = await runWith("run", state(block), { files });
    expect(code).toBe(2);
    expect(stderr).toContain(`state.${key}: secret-file: ${message}`);
    expect(stderr).not.toContain("too short");
  });

  test("a state file that is none", async () => {
    const files = { "state.log": "not ours\n" };
    const block = { store: "file", path: "state.log" };
    const { code, stderr } = await runWith("run", state(block), { files });
    expect([code, stderr]).toEqual([2, expect.stringContaining("not a line of a state file")]);
  });
});

test("one process has a state file, and a reload keeps it", async () => {
  const first = await own(ProxyProcess.start(state({ store: "file", path: "state.log" })));
  const block = { store: "file", path: first.path("state.log") };
  const { code, stderr } = await runWith("run", state(block));
  expect([code, stderr]).toEqual([2, expect.stringContaining("another process has this state")]);
  const other = state({ store: "file", path: "other.log" });
  expect(await first.refusedReload(other)).toContain("state.path");
});

/** Counts each host that it allows, for which there has to be room in the store. */
const counting = outbound(
  { name: "egress-policy", config: { allow: ["*.site.test"] } },
  {
    name: "budgets",
    config: { limits: [{ name: "names", unit: "hosts", limit: 10_000, window: "lifetime" }] },
  },
);

const visit = (proxy: ProxyProcess, host: string) =>
  request(proxy.forward, { target: `http://${host}:9/`, headers: { Host: `${host}:9` } });

test.each(["memory", "file"])(
  "store: %s takes no more than max_size, and says so",
  async (store) => {
    const block = { store, ...(store === "file" ? { path: "state.log" } : {}), max_size: "64KiB" };
    const hosts = Object.fromEntries(
      Array.from({ length: 900 }, (_, at) => [`h${at}.site.test`, ["127.0.0.1"]]),
    );
    const proxy = await own(
      ProxyProcess.start(merge(state(block), merge(counting, { egress: { hosts } }))),
    );
    const statuses: number[] = [];
    for (const host of Object.keys(hosts)) {
      const { status, text } = await visit(proxy, host);
      statuses.push(status);
      if (status !== 503) continue;
      expect(text).toContain("it is full (state.max_size)");
      break;
    }
    expect(statuses.at(-1)).toBe(503);
    expect(new Set(statuses)).toEqual(new Set([502, 503]));
  },
);

describe.skipIf(!hasRedis)("a proxy with its state in Redis", () => {
  test("a user who may have the keys and channels of key_prefix alone is enough, by password_file", async () => {
    const server = await own(
      RedisServer.start(
        ..."--user default off --user proxy on >geheim ~agents:* &agents:* +@all".split(" "),
      ),
    );
    const place = {
      store: "redis",
      url: server.url.replace("//", "//proxy@"),
      password_file: "pw",
    };
    const start = (key_prefix: string): Promise<ProxyProcess> =>
      own(
        ProxyProcess.start(merge(state({ ...place, key_prefix }), counting), {
          files: { pw: "geheim\n" },
        }),
      );
    const proxy = await start("agents:");
    expect((await visit(proxy, "a.site.test")).text).not.toContain("state");
    expect(await proxy.metric("authbridge_state_up")).toBe(1);
    expect(await proxy.metric("authbridge_state_operations_total", { result: "failed" })).toBe(0);
    const other = await start("others:");
    expect(await visit(other, "a.site.test")).toMatchObject({ status: 503 });
  });

  test("sentinels are asked for the server of sentinel_name, at url or at one of nodes", async () => {
    const server = await own(RedisServer.start());
    const sentinel = await own(RedisServer.sentinel("mine", server.port));
    const at = (sentinel_name: string, url: string): Settings =>
      state({
        store: "redis",
        timeout: "2s",
        sentinel_name,
        url,
        nodes: [`127.0.0.1:${sentinel.port}`],
      });
    for (const url of [sentinel.url, `redis://127.0.0.1:${await closedPort()}`]) {
      const found = await runWith("doctor", at("mine", url));
      expect(found.stdout).toMatch(/^pass {2}state .*answers$/m);
    }
    const unknown = await runWith("doctor", at("yours", sentinel.url));
    expect(unknown.stdout).toMatch(/^FAIL {2}state .*not available/m);
  });

  const tlsKeys = ["ca_file", "server_name", "cert_file", "key_file"] as const;
  test.each<[what: string, left: readonly string[], verdict: string]>([
    ["all of them", tlsKeys, "pass"],
    ["no authority of its own", tlsKeys.slice(1), "FAIL"],
    ["the name of its address", tlsKeys.filter((key) => key !== "server_name"), "FAIL"],
    ["no certificate of ours", tlsKeys.slice(0, 2), "FAIL"],
  ])("over TLS with %s", async (_what, left, verdict) => {
    const ours = leafCertificate("redis.test", [{ type: 2, value: "redis.test" }]);
    const directory = await mkdtemp(join(tmpdir(), "authbridge-redis-tls-"));
    await own({ close: () => rm(directory, { recursive: true, force: true }) });
    const at = (name: keyof typeof ours): string => join(directory, name);
    for (const name of ["ca", "cert", "key"] as const) await writeFile(at(name), ours[name]);
    const tls = `--port 0 --tls-port PORT --tls-cert-file ${at("cert")} --tls-key-file ${at("key")} --tls-ca-cert-file ${at("ca")}`;
    const server = await own(RedisServer.start(...tls.split(" ")));
    const keys = {
      ca_file: at("ca"),
      server_name: "redis.test",
      cert_file: at("cert"),
      key_file: at("key"),
    };
    const given = Object.fromEntries(Object.entries(keys).filter(([key]) => left.includes(key)));
    const url = server.url.replace("redis:", "rediss:");
    const { stdout } = await runWith(
      "doctor",
      state({ store: "redis", url, timeout: "1s", ...given }),
    );
    expect(/^(\w+) {2}state /m.exec(stdout)?.[1]).toBe(verdict);
  });

  test("an outage is in the log and in the metrics, and so is its end; traffic is served meanwhile", async () => {
    const server = await own(RedisServer.start());
    const files = { keys: randomBytes(32).toString("base64") };
    const block = { store: "redis", url: server.url, encryption_key_file: "keys" };
    const proxy = await own(ProxyProcess.start(state(block), { files }));
    expect(await proxy.metric("authbridge_state_up")).toBe(1);
    await server.kill();
    const away = await proxy.log(({ msg }) => msg === "the state store is away");
    expect(away).toMatchObject({ store: server.url });
    expect(await proxy.metric("authbridge_state_up")).toBe(0);
    expect(await proxy.metric("authbridge_state_outages_total")).toBe(1);
    expect((await proxy.health("/readyz")).status).toBe(200);
    await server.restart();
    await proxy.log(({ msg }) => msg === "the state store is back");
    await eventually(async () => (await proxy.metric("authbridge_state_up")) === 1);
  });

  test("the doctor uses the store, and says what to do where it cannot", async () => {
    const server = await own(RedisServer.start());
    const block = { store: "redis", url: server.url };
    const there = await runWith("doctor", state(block));
    expect(there.stdout).toMatch(/^pass {2}state .*answers$/m);
    await server.kill();
    const gone = await runWith("doctor", state(block));
    expect(gone.stdout).toMatch(/^FAIL {2}state .*not available.*see that the server runs/m);
  });
});
