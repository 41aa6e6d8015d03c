/** Two threads under load: one ends, one refuses a file, all are told to stop; what is lost is counted. */
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get } from "../support/http-client.ts";
import { KeptLoad } from "../support/kept-load.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const threadPlugins = fileURLToPath(new URL("../support/thread-plugins.ts", import.meta.url));
const connections = 100;
let origin: HttpOrigin;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
});

function file(config: Settings): Settings {
  return settings({
    plugin_modules: [threadPlugins],
    workers: 2,
    pipeline: { outbound: { plugins: [{ name: "thread", config }] } },
  });
}

async function loaded(path: string): Promise<{ proxy: ProxyProcess; load: KeptLoad }> {
  const proxy = await own(ProxyProcess.start(file({ word: "one" })));
  const load = await KeptLoad.start(proxy.forward, `${origin.url}${path}`, connections);
  await load.moves(3);
  expect(new Set(load.connections.map(({ thread }) => thread)).size).toBe(2);
  return { proxy, load };
}

describe("a hundred connections that ask without a pause", () => {
  test("lose nothing but those of a thread that ends, each the one request that was under way", async () => {
    const { proxy, load } = await loaded("/pass");
    await get(proxy.forward, "http://thread.test/exit").catch(() => undefined);
    await proxy.log(({ msg }) => msg.startsWith("a thread serves in place"));
    await load.moves(3);
    await load.stop();
    const lost = load.connections.filter(({ ended }) => ended !== undefined);
    const [dead = "", ...more] = new Set(lost.map(({ thread }) => thread));
    expect(more).toEqual([]);
    const its = load.sums(({ thread }) => thread === dead);
    // All of its connections, and one request on each.
    expect(its.lost).toBe(its.connections);
    expect(its.sent - its.answered).toBe(its.connections);
    const others = load.sums(({ thread }) => thread !== dead);
    expect(others).toMatchObject({ sent: others.answered, refused: 0, lost: 0 });
    expect(its.connections + others.connections).toBe(connections);
    // Its places are free, and new connections meet both threads.
    const after = await KeptLoad.start(proxy.forward, `${origin.url}/pass`, connections);
    await after.moves(1);
    await after.stop();
    expect(after.sums()).toMatchObject({ refused: 0, lost: 0 });
    expect(new Set(after.connections.map(({ thread }) => thread)).size).toBe(2);
  });

  test("see nothing of a file that one thread refuses, and all of one that both take", async () => {
    const { proxy, load } = await loaded("/pass");
    const why = await proxy.refusedReload(file({ word: "two", failsInOne: true }));
    expect(why).toContain("not in this one");
    await load.moves(3);
    for (const { words } of load.connections) expect([...words]).toEqual(["one"]);
    await proxy.reload(file({ word: "three" }));
    await load.moves(2);
    await load.stop();
    for (const { words } of load.connections) expect([...words]).toEqual(["one", "three"]);
    const sums = load.sums();
    expect(sums).toMatchObject({ sent: sums.answered, refused: 0, lost: 0 });
  });

  test("get the response to every request that the proxy had when it was told to stop", async () => {
    const gate = Promise.withResolvers<undefined>();
    let isHeld = false;
    let held = 0;
    origin.on("/pass/stop", async () => {
      if (isHeld) {
        held += 1;
        await gate.promise;
      }
      return reply(200, "whole");
    });
    const { proxy, load } = await loaded("/pass/stop");
    isHeld = true;
    await eventually(() => held === connections);
    proxy.signal("SIGTERM");
    await proxy.log(({ msg }) => msg === "shutting down");
    gate.resolve(undefined);
    await load.over();
    const { code } = await proxy.ended;
    expect(code).toBe(0);
    const sums = load.sums();
    expect(sums).toMatchObject({ connections, sent: sums.answered, refused: 0, lost: 0 });
    const flows = proxy.logs.filter(({ msg, path }) => msg === "flow" && path === "/pass/stop");
    expect(flows).toHaveLength(sums.answered);
  });
});

test("a thread that ends while files are prepared, operators ask and a hundred requests come: nothing hangs, and it stops", async () => {
  const proxy = await own(ProxyProcess.start(file({ word: "one" })));
  const ask = (path: string): Promise<unknown> =>
    get(proxy.forward, `${origin.url}${path}`).catch(() => undefined);
  for (let round = 0; round < 2; round += 1) {
    const before = await proxy.reloadStatus();
    await proxy.rewriteConfig(file({ word: `round-${round}`, failsInOne: round % 2 === 1 }));
    const all = [
      ...Array.from({ length: 100 }, () => ask("/pass")),
      ask("/exit"),
      ...["/v1/budgets", "/v1/approvals", "/v1/sessions", "/v1/kills"].map((path) =>
        proxy.sessions(path),
      ),
      proxy.stats("/stats"),
    ];
    await Promise.all(all);
    await eventually(async () => {
      const { reloads_ok: ok, reloads_failed: failed } = await proxy.reloadStatus();
      return ok + failed > before.reloads_ok + before.reloads_failed;
    });
    await eventually(async () => (await proxy.health("/readyz")).status === 200);
    expect(await proxy.metric("authbridge_threads")).toBe(2);
  }
  const last = [...Array.from({ length: 50 }, () => ask("/pass")), ask("/exit")];
  proxy.signal("SIGTERM");
  await Promise.all(last);
  expect((await proxy.ended).code).toBe(0);
});
