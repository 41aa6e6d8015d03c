/** A change of the file while everything runs: applied whole or not at all, and nobody in flight notices. */
import { mkdir, readFile, rename, symlink, writeFile } from "node:fs/promises";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get, openTunnel, RawClient } from "../support/http-client.ts";
import { HttpOrigin, reply, TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { oneThread, type Settings, toYaml } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let origin: HttpOrigin;
let proxy: ProxyProcess;

/** A file whose chain marks each request with a word. */
const marked = (word: string, over: Settings = {}): Settings =>
  merge(
    settings(merge({ listener: { skip_hosts: ["mesh.test"] } }, over)),
    outbound({ name: "header-mutator", config: { set: { "X-Mark": word } } }),
  );

beforeAll(async () => {
  origin = await own(HttpOrigin.launch(({ head }) => reply(200, head.header("x-mark") ?? "none")));
  proxy = await own(ProxyProcess.start(marked("start")));
});

const mark = async (): Promise<string> => (await get(proxy.forward, `${origin.url}/mark`)).text;

describe("a change", () => {
  test("C1, C7: of the pipeline serves, is counted, and /config shows it", async () => {
    expect(await mark()).toBe("start");
    const before = await proxy.reloadStatus();
    expect(before).toMatchObject({ reloads_ok: 0, reloads_failed: 0, last_error: "" });
    await proxy.reload(marked("c1"));
    expect(await mark()).toBe("c1");
    const after = await proxy.reloadStatus();
    expect(after).toMatchObject({ reloads_ok: 1, reloads_failed: 0, last_error: "" });
    expect(after.active_config_sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(after.active_config_sha256).not.toBe(before.active_config_sha256);
    expect((await proxy.stats("/config")).text).toContain('"c1"');
  });

  test("C2: a burst of writes is one reload", async () => {
    const slow = await own(ProxyProcess.start(marked("b0", { reload: { debounce: "400ms" } })));
    for (let count = 1; count <= 8; count += 1) {
      await slow.rewriteConfig(marked(`b${count}`, { reload: { debounce: "400ms" } }));
    }
    await eventually(async () => (await slow.reloadStatus()).reloads_ok > 0);
    expect((await get(slow.forward, `${origin.url}/`)).text).toBe("b8");
    expect((await slow.reloadStatus()).reloads_ok).toBe(1);
  });

  test("a refused file is told until what it was is back, which is no reload", async () => {
    const served = await own(ProxyProcess.start(marked("kept")));
    const gauge = () => served.metric("authbridge_config_last_reload_successful");
    expect(await gauge()).toBe(1);
    expect(await served.reloadStatus()).toMatchObject({ last_error: "" });
    await served.refusedReload("listener: [");
    expect(await gauge()).toBe(0);
    expect(await served.reloadStatus()).toMatchObject({ reloads_failed: 1 });
    await served.rewriteConfig(marked("kept"));
    await eventually(async () => (await gauge()) === 1);
    expect(await served.reloadStatus()).toMatchObject({
      last_error: "",
      reloads_ok: 0,
      reloads_failed: 1,
    });
    await served.refusedReload("listener: [");
    await served.reload(marked("next"));
    expect(await gauge()).toBe(1);
  });

  test("C3: the same bytes again are no reload", async () => {
    const { reloads_ok } = await proxy.reloadStatus();
    const text = await readFile(proxy.path("proxy.yaml"), "utf8");
    await writeFile(proxy.path("proxy.yaml"), text);
    await proxy.rewriteConfig(text);
    // A change that must be seen comes after those that must not.
    await proxy.reload(marked("c3"));
    expect((await proxy.reloadStatus()).reloads_ok).toBe(reloads_ok + 1);
  });

  test("in place, as some editors write, is noticed too", async () => {
    const { reloads_ok } = await proxy.reloadStatus();
    await writeFile(proxy.path("proxy.yaml"), toYaml(marked("in-place")));
    await eventually(async () => (await proxy.reloadStatus()).reloads_ok > reloads_ok);
    expect(await mark()).toBe("in-place");
  });
});

describe("a refused change", () => {
  beforeEach(async () => {
    if ((await mark()) !== "good") await proxy.reload(marked("good"));
  });

  const refusals: readonly (readonly [string, () => Settings | string, RegExp])[] = [
    ["C4: of the mode", () => merge(marked("x"), { mode: "waypoint" }), /mode/],
    [
      "C5: of a listener address",
      () => marked("x", { listener: { forward_proxy_addr: "127.0.0.1:18099" } }),
      /forward_proxy_addr/,
    ],
    [
      "C5: of the roles",
      () =>
        marked("x", {
          listener: { roles: ["reverse"], reverse_proxy_backend: "http://127.0.0.1:9" },
        }),
      /roles/,
    ],
    [
      "Z21: of the TLS bridge",
      () => marked("x", { tls_bridge: { mode: "enabled", ca_dir: "/tmp/none" } }),
      /tls_bridge/,
    ],
    [
      "of the stats address",
      () => marked("x", { stats: { address: "127.0.0.1:18093" } }),
      /stats\.address/,
    ],
    ["C6: to something invalid", () => merge(marked("x"), outbound("nope")), /nope/],
    ["C6, OPS-01: to broken YAML", () => "listener: {roles: [\n", /:\d+:\d+/],
    ["OPS-01: with an unknown key", () => marked("x", { lissener: {} }), /lissener/],
    [
      "to a plugin that cannot start",
      () => merge(marked("x"), outbound({ name: "faulty", config: { hook: "start" } })),
      /faulty/,
    ],
    [
      "to a plugin that does not start in time",
      () =>
        merge(
          marked("x", { limits: { plugin_start_timeout: "150.5ms" } }),
          outbound({ name: "faulty", config: { hook: "start", how: "hang" } }),
        ),
      /faulty.*not started within 151 ms \(limits\.plugin_start_timeout\)/,
    ],
    ["to an empty file", () => "", /./],
  ];
  test.each(refusals)("%s keeps the old one whole, and says why", async (_name, config, why) => {
    const { reloads_failed, active_config_sha256 } = await proxy.reloadStatus();
    const error = await proxy.refusedReload(config());
    expect(error).toMatch(why);
    const after = await proxy.reloadStatus();
    expect(after.reloads_failed).toBe(reloads_failed + 1);
    expect(after.active_config_sha256).toBe(active_config_sha256);
    expect(await mark()).toBe("good");
    expect((await proxy.stats("/config")).text).toContain('"good"');
    // The file that was refused is not remembered: putting the good one back is fine.
    await proxy.reload(`# after ${after.reloads_failed} refusals\n${toYaml(marked("good"))}`);
  });

  test("Z21: every key is either applied or refused: none is shown without being in force", async () => {
    const { reloads_ok } = await proxy.reloadStatus();
    const changes: readonly Settings[] = [
      { session: { enabled: false } },
      { session: { max_events: 7 } },
      { spiffe: { mirror_dir: "/elsewhere" } },
      { limits: { max_connections: 77 } },
      { limits: { max_tunnels: 78 } },
      { limits: { header_timeout: "9s" } },
      { log: { level: "error" } },
    ];
    let ok = reloads_ok;
    for (const change of changes) {
      const { reloads_failed } = await proxy.reloadStatus();
      await proxy.rewriteConfig(marked("good", change));
      const applied = await eventually(async () => {
        const status = await proxy.reloadStatus();
        if (status.reloads_ok > ok) return { isApplied: true };
        return status.reloads_failed > reloads_failed && { isApplied: false };
      });
      const shown = JSON.stringify(JSON.parse((await proxy.stats("/config")).text));
      const text = Object.values(change)
        .map((value) => JSON.stringify(value).slice(1, -1))
        .join("");
      const block = Object.keys(change).join(", ");
      if (!applied.isApplied) expect(shown, `${block} was refused`).not.toContain(text);
      else expect(shown, `${block} was applied`).toContain(text);
      ok = (await proxy.reloadStatus()).reloads_ok;
    }
  });
});

describe("in flight", () => {
  test("Z7: a request ends on the chain that it began with, Finish included", async () => {
    const recording = (id: string) =>
      oneThread(
        "each thread has an instance",
        settings(
          outbound(
            { name: "recorder", id, config: { file: "records" } },
            { name: "header-mutator", config: { response_set: { "X-Chain": id } } },
          ),
        ),
      );
    const here = await own(ProxyProcess.start(recording("old")));
    let answerNow: (() => void) | undefined;
    origin.on("/held", async () => {
      await new Promise<void>((resolve) => (answerNow = resolve));
      return reply(200, "held");
    });
    const client = await own(RawClient.connect(here.forward));
    client.write({ target: `${origin.url}/held` });
    await eventually(() => answerNow !== undefined);
    await here.reload(recording("new"));
    answerNow?.();
    const answer = await client.response();
    expect(answer.header("x-chain")).toBe("old");
    // The next request on the same connection is of the new generation.
    const next = await client.ask({ target: `${origin.url}/next` });
    expect(next.header("x-chain")).toBe("new");
    const ofHeld = await eventually(async () => {
      const records = await here.records("records");
      return (
        records.filter((line) => line["instance"] === "old" && line["hook"] === "close").length >
          0 && records
      );
    });
    expect(ofHeld.filter((line) => line["instance"] === "old").map((line) => line["hook"])).toEqual(
      ["start", "request", "response", "finish", "close"],
    );
  });

  test("twenty reloads under load fail no request and leave one generation", async () => {
    const here = await own(ProxyProcess.start(marked("load-0")));
    const load = { isOn: true };
    const failures: string[] = [];
    let served = 0;
    const worker = async (): Promise<void> => {
      const client = await RawClient.connect(here.forward);
      while (load.isOn) {
        const answer = await client.ask({ target: `${origin.url}/load` });
        if (answer.status !== 200 || !answer.text.startsWith("load-")) failures.push(answer.text);
        served += 1;
      }
      client.close();
    };
    const workers = Array.from({ length: 4 }, () =>
      worker().catch((error: unknown) => failures.push(String(error))),
    );
    for (let count = 1; count <= 20; count += 1) await here.reload(marked(`load-${count}`));
    load.isOn = false;
    await Promise.all(workers);
    expect(failures).toEqual([]);
    expect(served).toBeGreaterThan(100);
    expect(await here.reloadStatus()).toMatchObject({ reloads_ok: 20, reloads_failed: 0 });
    expect((await get(here.forward, `${origin.url}/`)).text).toBe("load-20");
    expect(here.logs.filter((line) => line["level"] === "error")).toEqual([]);
  });

  test.each([
    ["is closed", true],
    ["stays", false],
  ])(
    "an open tunnel that the new file refuses %s with recheck_tunnels: %s",
    async (_what, recheck_tunnels) => {
      const echo = await own(
        TcpOrigin.start(async (connection) => {
          for (let bytes = await connection.reader.some(60_000); bytes;) {
            await connection.send(bytes);
            bytes = await connection.reader.some(60_000);
          }
        }),
      );
      const hosts = { egress: { hosts: { "a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"] } } };
      const file = marked("x", { ...hosts, reload: { recheck_tunnels } });
      const here = await own(ProxyProcess.start(file));
      const [a, b] = await Promise.all(
        ["a.test", "b.test"].map(async (name) => {
          const { client, answer } = await openTunnel(here.forward, `${name}:${echo.port}`);
          expect(answer.status).toBe(200);
          return own(client);
        }),
      );
      const denying = outbound({ name: "connect-denier", config: { host: "a.test" } });
      await here.reload(merge(file, denying));
      if (recheck_tunnels) await a?.untilClosed();
      for (const open of recheck_tunnels ? [b] : [a, b]) {
        open?.send("still here");
        expect((await open?.reader.exactly(10))?.toString()).toBe("still here");
      }
      const { answer } = await openTunnel(here.forward, `a.test:${echo.port}`);
      expect(answer.status).toBe(403);
    },
  );
});

describe("the directory", () => {
  test("a ConfigMap's ..data swap is a reload", async () => {
    // The layout that the kubelet makes: proxy.yaml → ..data/proxy.yaml, ..data → a dated directory.
    const here = await own(ProxyProcess.start(marked("before")));
    const place = async (name: string, word: string): Promise<void> => {
      await mkdir(here.path(name));
      await writeFile(here.path(`${name}/proxy.yaml`), toYaml(marked(word)));
    };
    await place("..2026_01", "one");
    await symlink("..2026_01", here.path("..data"));
    await symlink("..data/proxy.yaml", here.path("next"));
    await rename(here.path("next"), here.path("proxy.yaml"));
    await eventually(async () => (await get(here.forward, `${origin.url}/`)).text === "one");
    await place("..2026_02", "two");
    await symlink("..2026_02", here.path("..data_tmp"));
    await rename(here.path("..data_tmp"), here.path("..data"));
    await eventually(async () => (await get(here.forward, `${origin.url}/`)).text === "two");
  });

  test("reload.enabled false watches nothing", async () => {
    const here = await own(ProxyProcess.start(marked("fixed", { reload: { enabled: false } })));
    await here.rewriteConfig(marked("changed", { reload: { enabled: false } }));
    // The other proxy sees its change within its debounce; this one had as long.
    await proxy.reload(marked("meanwhile"));
    expect((await get(here.forward, `${origin.url}/`)).text).toBe("fixed");
    expect((await here.reloadStatus()).reloads_ok).toBe(0);
  });
});
