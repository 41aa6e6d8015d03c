/** The block `state` as an operator meets it: what is refused, what the doctor says, what is seen of an outage. */
import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { owner } from "../support/owner.ts";
import { runWith, type Settings } from "../support/program.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";

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

describe.skipIf(!hasRedis)("a proxy with its state in Redis", () => {
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
