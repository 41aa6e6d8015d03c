/** Order, policy and ends of a chain, as plugins of an operator see them. */
import { writeFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get, RawClient, request } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { oneThread, runWith, type LogLine } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let origin: HttpOrigin;
let proxy: ProxyProcess;

const recorder = (id: string, over: Readonly<Record<string, unknown>> = {}) => ({
  name: "recorder",
  id,
  config: { file: "records" },
  ...over,
});

beforeAll(async () => {
  origin = await own(HttpOrigin.launch(() => reply(200, "hello", { "X-From": "origin" })));
  proxy = await own(
    ProxyProcess.start(
      settings(
        outbound(
          recorder("one"),
          { name: "faulty", id: "ft", config: { hook: "finish", path: "/finish-throws" } },
          {
            name: "faulty",
            id: "fh",
            config: { hook: "finish", how: "hang", path: "/finish-hangs" },
          },
          { name: "denier", id: "real", config: { path: "/denied" } },
          { name: "faulty", id: "rh", config: { hook: "request", how: "wait", path: "/hangs" } },
          recorder("two"),
          { name: "denier", id: "shadow", on_error: "observe", config: { path: "/shadowed" } },
          {
            name: "denier",
            id: "shadow-response",
            on_error: "observe",
            config: { path: "/shadowed", phase: "response" },
          },
          {
            name: "faulty",
            id: "shadow-fault",
            on_error: "observe",
            config: { hook: "request", path: "/shadow-fault" },
          },
          {
            name: "header-mutator",
            on_error: "observe",
            config: {
              set: { "X-Observed": "1", Authorization: "Bearer swapped" },
              delete: ["X-Mine"],
              response_set: { "X-Observed": "1" },
              response_delete: ["X-From"],
            },
          },
          { name: "request-body-writer", on_error: "observe", config: { body: "observed" } },
          { name: "denier", id: "never", on_error: "off", config: {} },
          recorder("off", { on_error: "off" }),
          recorder("three"),
        ),
      ),
    ),
  );
});

const fetchPath = (path: string, headers: Readonly<Record<string, string>> = {}) =>
  get(proxy.forward, `${origin.url}${path}`, headers);

/** Hooks that one request went through, in order, once it is finished. */
async function hooksOf(path: string): Promise<string[]> {
  return eventually(async () => {
    const records = await proxy.records("records");
    const first = records.findIndex((line) => line["path"] === path);
    const last = records.findLastIndex(
      (line) => line["hook"] === "finish" && line["path"] === path && line["instance"] === "one",
    );
    if (first === -1 || last === -1) return false;
    return records
      .slice(first, last + 1)
      .map((line) => `${String(line["hook"])} ${String(line["instance"])}`);
  });
}

async function invocationsOf(path: string): Promise<LogLine[]> {
  return eventually(async () => {
    const { events } = (await proxy.sessions("/v1/sessions/default")).json() as {
      events: { invocations?: { outbound?: LogLine[] } }[];
    };
    const found = events
      .flatMap((event) => event.invocations?.outbound ?? [])
      .filter((one) => one["path"] === path);
    return found.length > 0 && found;
  });
}

describe("order", () => {
  test("L1, L9: requests go down the list; responses and ends come back up", async () => {
    await fetchPath("/order");
    expect(await hooksOf("/order")).toEqual([
      "request one",
      "request two",
      "request three",
      "response three",
      "response two",
      "response one",
      "finish three",
      "finish two",
      "finish one",
    ]);
  });

  test("L2, L9: after a refusal nobody further is asked, and only those asked are told the end", async () => {
    expect((await fetchPath("/denied")).status).toBe(403);
    expect(await hooksOf("/denied")).toEqual(["request one", "finish one"]);
    const end = (await proxy.records("records")).findLast(
      (line) => line["hook"] === "finish" && line["path"] === "/denied",
    );
    expect(end).toMatchObject({ status: 403, deniedBy: "denier", code: "policy.forbidden" });
  });
});

describe("observe and off", () => {
  test("L3: a refusal under observe passes and is recorded as a shadow", async () => {
    const answer = await fetchPath("/shadowed");
    expect(answer.status).toBe(200);
    const shadows = (await invocationsOf("/shadowed")).filter((one) => one["plugin"] === "denier");
    expect(shadows.filter((one) => one["shadow"] === true)).toMatchObject([
      { action: "deny", phase: "request", shadow: true },
      { action: "deny", phase: "response", shadow: true },
    ]);
  });

  test("L3: a fault under observe passes too", async () => {
    expect((await fetchPath("/shadow-fault")).status).toBe(200);
  });

  test("L4: a plugin that is off is never asked, recorded or told", async () => {
    expect((await fetchPath("/off")).status).toBe(200);
    const hooks = await hooksOf("/off");
    expect(hooks.filter((hook) => hook.endsWith(" off"))).toEqual([]);
    const denials = (await invocationsOf("/off")).filter((one) => one["plugin"] === "denier");
    expect(denials.filter((one) => one["action"] === "deny")).toEqual([]);
  });

  test("L5: nothing that a plugin under observe does reaches the wire, headers included", async () => {
    const answer = await request(proxy.forward, {
      method: "POST",
      target: `${origin.url}/observed`,
      headers: { "X-Mine": "kept", Authorization: "Bearer mine" },
      body: "my own body",
    });
    const seen = origin.requestFor("/observed");
    expect(seen.text).toBe("my own body");
    expect(seen.header("x-observed")).toBeUndefined();
    expect(seen.header("x-mine")).toBe("kept");
    expect(seen.header("authorization")).toBe("Bearer mine");
    expect(answer.text).toBe("hello");
    expect(answer.header("x-observed")).toBeUndefined();
    expect(answer.header("x-from")).toBe("origin");
  });
});

describe("ends", () => {
  test("L9: a plugin that throws at the end does not keep the others from theirs", async () => {
    expect((await fetchPath("/finish-throws")).status).toBe(200);
    expect((await hooksOf("/finish-throws")).slice(-3)).toEqual([
      "finish three",
      "finish two",
      "finish one",
    ]);
  });

  test("L9: a plugin that never ends has two seconds", async () => {
    expect((await fetchPath("/finish-hangs")).status).toBe(200);
    expect((await hooksOf("/finish-hangs")).at(-1)).toBe("finish one");
  });

  test("L9, L11: when the client is gone the chain stops, and the end is still told", async () => {
    const client = await RawClient.connect(proxy.forward);
    client.write({ target: `${origin.url}/hangs` });
    await eventually(async () =>
      (await proxy.records("records")).some((line) => line["path"] === "/hangs"),
    );
    client.socket.resetAndDestroy();
    expect(await hooksOf("/hangs")).toEqual(["request one", "finish one"]);
    expect(origin.requestsFor("/hangs")).toEqual([]);
    const end = (await proxy.records("records")).findLast((line) => line["path"] === "/hangs");
    expect(end).toMatchObject({ hook: "finish", status: 499 });
  });
});

describe("a life", () => {
  test("L6: a plugin that cannot start unwinds those that did, and the start fails", async () => {
    const config = settings(
      outbound(recorder("a"), recorder("b"), { name: "faulty", config: { hook: "start" } }),
    );
    const { mkdtemp, readFile, rm } = await import("node:fs/promises");
    const directory = await mkdtemp("/tmp/authbridge-journey-l6-");
    try {
      const file = `${directory}/records`;
      const text = JSON.stringify(config).replaceAll('"file":"records"', `"file":"${file}"`);
      const { code, stderr } = await runWith("run", text);
      expect(code).not.toBe(0);
      expect(stderr).toContain("faulty");
      const lines = (await readFile(file, "utf8")).trim().split("\n");
      expect(lines.map((line) => JSON.parse(line) as LogLine)).toEqual([
        { instance: "a", hook: "start" },
        { instance: "b", hook: "start" },
        { instance: "b", hook: "close" },
        { instance: "a", hook: "close" },
      ]);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });

  test("L7: a plugin that cannot close does not keep the others from closing, in reverse", async () => {
    const here = await own(
      ProxyProcess.start(
        oneThread(
          "each thread has instances of its own",
          settings(
            outbound(recorder("a"), { name: "faulty", config: { hook: "close" } }, recorder("b")),
          ),
        ),
      ),
    );
    const { code } = await here.stop();
    expect(code).toBe(0);
    expect((await here.records("records")).slice(2)).toEqual([
      { instance: "b", hook: "close" },
      { instance: "a", hook: "close" },
    ]);
  });

  test("L8: one plugin that is not ready keeps the proxy not ready, by name", async () => {
    const here = await own(
      ProxyProcess.start(
        merge(
          settings(outbound("plain", { name: "not-ready", config: { until: "ready-file" } })),
          {},
        ),
      ),
    );
    const { status, text } = await here.health("/readyz");
    expect(status).toBe(503);
    expect(text).toContain("outbound plugin not ready: not-ready");
    expect((await here.health("/healthz")).status).toBe(200);
    await writeFile(here.path("ready-file"), "");
    await eventually(async () => (await here.health("/readyz")).status === 200);
  });

  test("a chain in which nobody judged ends as its default says", async () => {
    const here = await own(
      ProxyProcess.start(
        settings({ pipeline: { outbound: { plugins: ["skipper"], default: "deny" } } }),
      ),
    );
    const answer = await get(here.forward, `${origin.url}/default`);
    expect(answer.status).toBe(403);
    expect(answer.json()).toMatchObject({ error: "policy.forbidden" });
    expect(origin.requestsFor("/default")).toEqual([]);
    await here.reload(
      settings({ pipeline: { outbound: { plugins: ["skipper", "plain"], default: "deny" } } }),
    );
    expect((await get(here.forward, `${origin.url}/default`)).status).toBe(200);
  });
});
