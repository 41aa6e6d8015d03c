/** The proxy inside another program: what `createProxy` gives, as that program sees it. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  createProxy,
  type EmbeddedProxy,
  OptionsError,
  type ProxyAddress,
  type ProxyEvent,
  type ProxyOptions,
} from "../../src/embed/proxy.ts";
import { definePlugin, deny, modify } from "../../src/pipeline/plugin.ts";
import { eventually } from "../support/eventually.ts";
import { RawClient, request } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";

const egress = { allow_ips: ["127.0.0.0/8"] };
const open: EmbeddedProxy[] = [];
let origin: HttpOrigin;

beforeEach(async () => {
  origin = await HttpOrigin.launch();
});

afterEach(async () => {
  await Promise.all(open.splice(0).map((proxy) => proxy.close({ timeout: 0 })));
  await origin.close();
});

/** A proxy that listens, and its forward port. */
async function listening(options: ProxyOptions = {}): Promise<[EmbeddedProxy, ProxyAddress]> {
  const proxy = createProxy({ egress, ...options });
  open.push(proxy);
  const { forward } = await proxy.listen();
  return [proxy, forward!];
}

async function statusThrough(address: ProxyAddress, path = "/"): Promise<number> {
  return (await request(address, { target: `${origin.url}${path}` })).status;
}

/** Names what it lets through in a field of its own. */
function stamp(value: string): ReturnType<typeof definePlugin> {
  return definePlugin({
    name: "stamp",
    description: "Stamps requests",
    create: () => ({
      onRequest: ({ headers, path }) => {
        if (path === "/throws") throw new Error("the plugin fails");
        if (path === `/${value}`)
          return deny("own_path", { code: "stamp.own", message: "no", status: 403 });
        headers.set("x-stamp", value);
        return modify("stamped");
      },
    }),
  });
}

const refuseAll = { pipeline: { outbound: { plugins: [], default: "deny" } } } as const;

async function problemsOf(attempt: Promise<unknown>): Promise<readonly string[]> {
  const error: unknown = await attempt.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(OptionsError);
  return (error as OptionsError).problems.map(({ key, message }) => `${key}: ${message}`);
}

test("two proxies in one process have policies of their own, and each is reloaded by itself", async () => {
  const [first, firstAt] = await listening({
    pipeline: { outbound: { plugins: [stamp("a")] } },
  });
  const [, secondAt] = await listening({ pipeline: { outbound: { plugins: [stamp("b")] } } });
  expect(firstAt.port).not.toBe(secondAt.port);
  expect([await statusThrough(firstAt, "/a"), await statusThrough(firstAt, "/b")]).toEqual([
    403, 200,
  ]);
  expect([await statusThrough(secondAt, "/a"), await statusThrough(secondAt, "/b")]).toEqual([
    200, 403,
  ]);
  expect(origin.requestFor("/b").head.header("x-stamp")).toBe("a");

  await first.reload({ egress, ...refuseAll });
  expect(await statusThrough(firstAt, "/other")).toBe(403);
  expect(await statusThrough(secondAt, "/other")).toBe(200);
});

test("a hundred requests at once through each of two proxies", async () => {
  const [first, firstAt] = await listening();
  const [, secondAt] = await listening(refuseAll);
  const seen = collected(first);
  const statuses = await Promise.all(
    Array.from({ length: 100 }, (_, at) => [
      statusThrough(firstAt, `/${at}`),
      statusThrough(secondAt, `/${at}`),
    ]).flat(),
  );
  expect(statuses.filter((status) => status === 200)).toHaveLength(100);
  expect(statuses.filter((status) => status === 403)).toHaveLength(100);
  await first.close();
  const responses = (await seen).filter(({ phase }) => phase === "response");
  expect(new Set(responses.map(({ httpPath }) => httpPath)).size).toBe(100);
});

describe("options", () => {
  test("are refused whole, with the path of every key", async () => {
    const proxy = createProxy({
      listener: { forwrd_proxy_addr: ":0" },
      pipeline: { outbound: { plugins: ["egress-polic", { name: "budgets", config: { x: 1 } }] } },
      limits: { max_body: () => 1 },
      workers: 2,
      reload: { enabled: true },
    } as unknown as ProxyOptions);
    open.push(proxy);
    const found = await problemsOf(proxy.listen());
    expect(found).toEqual(
      expect.arrayContaining([
        "listener.forwrd_proxy_addr: unknown key (did you mean forward_proxy_addr?)",
        "limits.max_body: must be plain data: text, number, boolean, list or mapping",
        "workers: must be 1: an embedded proxy serves in the thread that made it",
        "reload.enabled: is for files, which are followed: call reload() with other options",
      ]),
    );
    expect(found.join("\n")).toContain("pipeline.outbound.plugins[0]");
    expect(found.join("\n")).toContain("pipeline.outbound.plugins[1]");
    expect(proxy.address).toEqual({});
  });

  test.each([
    [null, ": must be an object"],
    [{ logger: "console" }, "logger: must be an object with debug, info, warn, error"],
    [{ plugins: {} }, "plugins: must be a list of plugins"],
    [{ plugins: [{ name: "x" }] }, "plugins[0]: must be a plugin, as definePlugin returns it"],
    [
      { plugins: [{ ...stamp("a"), name: "opa" }] },
      'plugins[0]: the name "opa" is taken by another plugin',
    ],
    [
      { pipeline: { outbound: { plugins: [stamp("a"), { plugin: stamp("b") }] } } },
      'pipeline.outbound.plugins[1].plugin: the name "stamp" is taken by another plugin',
    ],
    [
      { pipeline: { outbound: { plugins: [{ plugin: stamp("a"), name: "egress-policy" }] } } },
      'pipeline.outbound.plugins[0].name: the plugin has a name of its own ("stamp"): leave this one out',
    ],
  ])("%j is refused in words", async (options, problem) => {
    const proxy = createProxy(options as unknown as ProxyOptions);
    expect(await problemsOf(proxy.listen())).toContain(problem);
    await proxy.close();
  });

  test("that contain themselves are refused", async () => {
    const limits: Record<string, unknown> = {};
    limits["limits"] = limits;
    const proxy = createProxy({ limits });
    expect((await problemsOf(proxy.listen())).join("\n")).toContain("levels deep");
    await proxy.close();
  });

  test("no text is looked up in the environment, as that of a file is", async () => {
    const configured = definePlugin({
      name: "configured",
      description: "Says what it was configured with",
      config: z.strictObject({ text: z.string() }),
      create: ({ text: said }) => ({
        onRequest: ({ headers }) => {
          headers.set("x-said", said);
          return modify("said");
        },
      }),
    });
    const step = { plugin: configured, id: "mine", config: { text: "$HOME", none: undefined } };
    const [, address] = await listening({ pipeline: { outbound: { plugins: [step] } } });
    expect(await statusThrough(address, "/said")).toBe(200);
    expect(origin.requestFor("/said").head.header("x-said")).toBe("$HOME");
  });

  test("a later change of the object changes nothing", async () => {
    const options = { pipeline: { outbound: { default: "allow" as "allow" | "deny" } } };
    const [, address] = await listening(options);
    options.pipeline.outbound.default = "deny";
    expect(await statusThrough(address)).toBe(200);
  });

  test("operators' surfaces are open where they are written, and nowhere else", async () => {
    const [plain] = await listening();
    expect(Object.keys(plain.address)).toEqual(["forward"]);
    const [whole] = await listening({
      listener: {
        forward_proxy_addr: "127.0.0.1:0",
        reverse_proxy_backend: origin.url,
        session_api_addr: "127.0.0.1:0",
        health_addr: "127.0.0.1:0",
      },
      stats: { address: "127.0.0.1:0" },
    });
    expect(Object.keys(whole.address).sort()).toEqual([
      "forward",
      "health",
      "reverse",
      "sessions",
      "stats",
    ]);
    const { health, stats, reverse } = whole.address;
    const headers = { host: "127.0.0.1" };
    expect((await request(health!, { target: "/readyz", headers })).status).toBe(200);
    expect((await request(stats!, { target: "/metrics", headers })).text).toContain(
      "authbridge_ready 1",
    );
    expect((await request(reverse!, { target: "/in", headers })).text).toBe(
      "hello from the origin",
    );
  });
});

describe("a reload", () => {
  test("that is refused changes nothing, and says which key", async () => {
    const [proxy, address] = await listening();
    expect(
      await problemsOf(proxy.reload({ egress, ...refuseAll, limits: { max_tunnels: 7 } })),
    ).toEqual(["limits.max_tunnels: cannot change while the proxy listens"]);
    expect(await problemsOf(proxy.reload({ egress: { allow_ip: [] } } as never))).toEqual([
      "egress.allow_ip: unknown key (did you mean allow_ips?)",
    ]);
    expect(await problemsOf(proxy.reload({ egress, logger: {} }))).toEqual([
      ": logger: cannot change while the proxy listens",
    ]);
    const failing = definePlugin({
      name: "failing",
      description: "Does not start",
      create: () => ({ start: () => Promise.reject(new Error("not today")) }),
    });
    const found = await problemsOf(
      proxy.reload({ egress, pipeline: { outbound: { plugins: [failing] } } }),
    );
    expect(found.join("\n")).toContain("not today");
    expect(await statusThrough(address)).toBe(200);
  });

  test("replaces a plugin by another object of the same name", async () => {
    const [proxy, address] = await listening({ pipeline: { outbound: { plugins: [stamp("a")] } } });
    expect(await statusThrough(address, "/a")).toBe(403);
    await proxy.reload({ egress, pipeline: { outbound: { plugins: [stamp("b")] } } });
    expect(await statusThrough(address, "/a")).toBe(200);
  });

  test("several at once are applied one after another", async () => {
    const [proxy, address] = await listening();
    const steps = Array.from({ length: 10 }, (_, at) =>
      proxy.reload({ egress, pipeline: { outbound: { plugins: [stamp(String(at))] } } }),
    );
    await Promise.all(steps);
    expect(await statusThrough(address, "/9")).toBe(403);
    expect(await statusThrough(address, "/8")).toBe(200);
  });
});

test("a plugin that throws refuses its message, and the next one passes", async () => {
  const lines: [Readonly<Record<string, unknown>>, string][] = [];
  const [, address] = await listening({
    plugins: [stamp("a")],
    pipeline: { outbound: { plugins: ["stamp"] } },
    logger: { error: (fields, message) => lines.push([fields, message]) },
  });
  expect(await statusThrough(address, "/throws")).toBe(500);
  expect(await statusThrough(address)).toBe(200);
  expect(lines.length).toBeGreaterThan(0);
});

test("a logger that throws harms nobody", async () => {
  const info = (): never => {
    throw new Error("disk full");
  };
  const [, address] = await listening({ logger: { info, warn: info, error: info } });
  expect(await statusThrough(address)).toBe(200);
});

describe("events", () => {
  test("a reader that is slow loses events, which are counted, and holds nobody up", async () => {
    const [proxy, address] = await listening();
    const slow = proxy.events[Symbol.asyncIterator]();
    const quick = collected(proxy);
    const first = await Promise.all([slow.next(), statusThrough(address, "/first")]);
    expect(first[0]).toMatchObject({ value: { httpPath: "/first" } });
    const client = await RawClient.connect(address);
    for (let at = 0; at < 600; at += 1)
      await client.ask({ target: `${origin.url}/many`, headers: { host: origin.authority } });
    client.socket.destroy();
    await proxy.close();
    expect((await quick).length).toBe(1_202);
    // One was handed over, 1,024 wait, and the rest is lost.
    expect(slow.dropped).toBe(177);
    expect(proxy.events.dropped).toBe(177);
    let left = 0;
    for (let next = await slow.next(); next.done !== true; next = await slow.next()) left += 1;
    expect(left).toBe(1_024);
  });

  test("a reader may leave, and one that comes late has no past", async () => {
    const [proxy, address] = await listening();
    for await (const event of firstOf(proxy, () => statusThrough(address, "/one"))) {
      expect(event).toMatchObject({ phase: "request", httpPath: "/one" });
      break;
    }
    await eventually(async () => (await statusThrough(address, "/two")) === 200);
    await proxy.close();
    expect(await collected(proxy)).toEqual([]);
    expect(proxy.events.dropped).toBe(0);
  });

  test("come where sessions are off as well", async () => {
    const [proxy, address] = await listening({ session: { enabled: false } });
    const seen = collected(proxy);
    expect(await statusThrough(address, "/seen")).toBe(200);
    await proxy.close();
    expect((await seen).map(({ phase }) => phase)).toEqual(["request", "response"]);
  });
});

describe("close", () => {
  test("lets a response finish, and takes no connection meanwhile", async () => {
    const arrived = Promise.withResolvers<void>();
    const goOn = Promise.withResolvers<void>();
    origin.on("/slow", async () => {
      arrived.resolve();
      await goOn.promise;
      return reply(200, "late");
    });
    const [proxy, address] = await listening();
    const response = request(address, { target: `${origin.url}/slow` });
    await arrived.promise;
    const closed = proxy.close({ timeout: 60_000 });
    expect(proxy.close()).toBe(closed);
    expect(proxy.address).toEqual({});
    await eventually(() => isRefused(address));
    goOn.resolve();
    expect((await response).text).toBe("late");
    await closed;
    await expect(proxy.listen()).rejects.toThrow("the proxy is closed");
    await expect(proxy.reload({})).rejects.toThrow("the proxy does not listen");
  });

  test("cuts what is not over within the limit", async () => {
    const arrived = Promise.withResolvers<void>();
    origin.on("/never", () => {
      arrived.resolve();
      return new Promise<void>(() => undefined);
    });
    const [proxy, address] = await listening();
    const response = request(address, { target: `${origin.url}/never` }).catch(() => "cut");
    await arrived.promise;
    await proxy.close({ timeout: 0 });
    expect([502, 503, 504, undefined]).toContain(((await response) as { status?: number }).status);
    await expect(proxy.close({ timeout: -1 })).rejects.toThrow(RangeError);
  });

  test("a port that is taken is an error with a code, and another attempt may succeed", async () => {
    const [, taken] = await listening();
    const listener = { forward_proxy_addr: `127.0.0.1:${taken.port}` };
    const proxy = createProxy({ listener });
    await expect(proxy.listen()).rejects.toMatchObject({ code: "listener.unavailable" });
    await Promise.all(open.splice(0).map((one) => one.close()));
    open.push(proxy);
    expect((await proxy.listen()).forward?.port).toBe(taken.port);
  });
});

test("a program that embeds it ends by itself, says nothing and keeps its own signals", async () => {
  const module = new URL("../../src/embed/proxy.ts", import.meta.url).href;
  const script = `
    const before = JSON.stringify(process.env);
    const { createProxy } = await import(${JSON.stringify(module)});
    const names = () => process.eventNames().map(String).sort().join();
    const events = names();
    const proxies = [createProxy(), createProxy({ listener: { health_addr: "127.0.0.1:0" } })];
    await Promise.all(proxies.map((proxy) => proxy.listen()));
    if (names() !== events) throw new Error(names());
    if (JSON.stringify(process.env) !== before) throw new Error("the environment has changed");
    await Promise.all(proxies.map((proxy) => proxy.close()));
    process.on("exit", (code) => require("node:fs").writeSync(1, "exit " + code));`;
  const child = spawn(process.execPath, [
    "--input-type=module",
    "--eval",
    `
    import { createRequire } from "node:module"; const require = createRequire("file:///");${script}`,
  ]);
  const [[code], stdout, stderr] = await Promise.all([
    once(child, "close"),
    text(child.stdout),
    text(child.stderr),
  ]);
  expect([code, stdout, stderr]).toEqual([0, "exit 0", ""]);
});

async function collected({ events }: EmbeddedProxy): Promise<ProxyEvent[]> {
  const seen: ProxyEvent[] = [];
  for await (const event of events) seen.push(event);
  return seen;
}

/** The events from before `act` on. */
function firstOf(
  { events }: EmbeddedProxy,
  act: () => Promise<unknown>,
): AsyncIterable<ProxyEvent> {
  const reader = events[Symbol.asyncIterator]();
  void act();
  return reader;
}

function isRefused({ host, port }: ProxyAddress): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    socket.once("connect", () => resolve(false)).once("error", () => resolve(true));
    socket.once("connect", () => socket.destroy());
  });
}
