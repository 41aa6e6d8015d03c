/** How the process ends, and what signals do. */
import { beforeAll, describe, expect, test } from "vitest";
import { eventually, within } from "../support/eventually.ts";
import { get, openTunnel, RawClient } from "../support/http-client.ts";
import { HttpOrigin, reply, TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { oneThread, type Settings } from "../support/program.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let origin: HttpOrigin;

/** Answers that wait for the test. */
const held = new Map<string, () => void>();

beforeAll(async () => {
  origin = await own(
    HttpOrigin.launch(async ({ target }) => {
      if (!target.startsWith("/held")) return reply(200, "hello");
      await new Promise<void>((resolve) => held.set(target, resolve));
      return reply(200, "at last");
    }),
  );
});

function start(limits: Settings = {}, over: Settings = {}): Promise<ProxyProcess> {
  return own(ProxyProcess.start(settings({ limits, ...over })));
}

async function holding(proxy: ProxyProcess, path: string): Promise<RawClient> {
  const client = await own(RawClient.connect(proxy.forward));
  client.write({ target: `${origin.url}${path}` });
  await eventually(() => held.has(path));
  return client;
}

const isRefused = async (proxy: ProxyProcess): Promise<boolean> =>
  get(proxy.forward, `${origin.url}/`).then(
    ({ status }) => status === 503,
    () => true,
  );

describe("SIGTERM", () => {
  test.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)(
    "%s lets a request in flight end, takes no new one, and exits 0",
    async (signal) => {
      const path = `/held-${signal}`;
      const proxy = await start();
      const client = await holding(proxy, path);
      proxy.signal(signal);
      await proxy.log((line) => line["msg"] === "shutting down");
      await eventually(() => isRefused(proxy));
      held.get(path)?.();
      const answer = await client.response();
      expect(answer.status).toBe(200);
      expect(answer.text).toBe("at last");
      client.close();
      const { code, signal: by } = await within("the end", proxy.ended, 5000);
      expect({ code, by }).toEqual({ code: 0, by: null });
    },
  );

  test("closes the plugins of the configuration in force and of the one before it", async () => {
    const recording = (id: string): Settings =>
      oneThread(
        "each thread has instances of its own",
        settings(outbound({ name: "recorder", id, config: { file: "records" } })),
      );
    const proxy = await own(ProxyProcess.start(recording("old")));
    await proxy.reload(recording("new"));
    proxy.signal("SIGTERM");
    expect((await within("the end", proxy.ended)).code).toBe(0);
    const closed = (await proxy.records("records")).filter(({ hook }) => hook === "close");
    expect(closed).toHaveLength(2);
    expect(closed.map(({ instance }) => instance)).toEqual(expect.arrayContaining(["new", "old"]));
  });

  test("an answer during the drain says that its connection closes, and does not hold it up", async () => {
    const proxy = await start({ drain_timeout: "5s" });
    const client = await holding(proxy, "/held-closing");
    proxy.signal("SIGTERM");
    await proxy.log((line) => line["msg"] === "shutting down");
    held.get("/held-closing")?.();
    expect((await client.response()).header("connection")).toBe("close");
    expect((await within("the end", proxy.ended, 3000)).code).toBe(0);
  });

  test("/readyz is off while the flows drain", async () => {
    const proxy = await start();
    const client = await holding(proxy, "/held-ready");
    proxy.signal("SIGTERM");
    await eventually(async () => {
      const answer = await proxy.health("/readyz").catch(() => undefined);
      return answer !== undefined && answer.status === 503;
    });
    held.get("/held-ready")?.();
    await client.response();
    client.close();
    expect((await within("the end", proxy.ended, 5000)).code).toBe(0);
  });

  test("idle connections do not hold it up", async () => {
    const proxy = await start({ drain_timeout: "5s" });
    const client = await own(RawClient.connect(proxy.forward));
    await client.ask({ target: `${origin.url}/` });
    await own(RawClient.connect(proxy.forward));
    const before = Date.now();
    expect((await proxy.stop()).code).toBe(0);
    expect(Date.now() - before).toBeLessThan(4000);
    await client.untilClosed();
  });

  test("a flow that does not end is cut at the limit, and the exit is still 0", async () => {
    const proxy = await start({ drain_timeout: "500ms" });
    const client = await holding(proxy, "/held-for-ever");
    expect((await proxy.stop()).code).toBe(0);
    await client.untilClosed();
  });

  test("an open tunnel goes on until the limit", async () => {
    const echo = await own(
      TcpOrigin.start(async (connection) => {
        for (let bytes = await connection.reader.some(60_000); bytes;) {
          await connection.send(bytes);
          bytes = await connection.reader.some(60_000);
        }
      }),
    );
    const proxy = await start({ drain_timeout: "1500ms" });
    const { client } = await openTunnel(proxy.forward, echo.authority);
    await own(client);
    proxy.signal("SIGTERM");
    await proxy.log((line) => line["msg"] === "shutting down");
    await eventually(() => isRefused(proxy));
    client.send("ping");
    expect((await client.reader.exactly(4)).toString()).toBe("ping");
    expect((await within("the end", proxy.ended, 5000)).code).toBe(0);
    await client.untilClosed();
  });

  test("a tunnel whose ends close in one moment does not keep the process", async () => {
    const silent = await own(TcpOrigin.start(() => undefined));
    const proxy = await start({ drain_timeout: "10s" });
    const { client } = await openTunnel(proxy.forward, silent.authority);
    await own(client);
    proxy.signal("SIGTERM");
    await proxy.log((line) => line["msg"] === "shutting down");
    await eventually(() => isRefused(proxy));
    // Both FINs wait in the kernel when it wakes up, the origin's first.
    proxy.signal("SIGSTOP");
    await new Promise<void>((resolve) => silent.connections[0]?.socket.end(resolve));
    await new Promise<void>((resolve) => client.socket.end(resolve));
    proxy.signal("SIGCONT");
    expect((await within("the end", proxy.ended, 15_000)).code).toBe(0);
  });

  test("a second signal exits at once", async () => {
    const proxy = await start({ drain_timeout: "60s" });
    await holding(proxy, "/held-twice");
    proxy.signal("SIGTERM");
    await proxy.log((line) => line["msg"] === "shutting down");
    proxy.signal("SIGTERM");
    await within("the end", proxy.ended, 2000);
  });

  test("plugins are closed", async () => {
    const config = outbound({ name: "recorder", config: { file: "records" } });
    const proxy = await start({}, oneThread("each thread has an instance", config));
    await proxy.stop();
    expect((await proxy.records("records")).map((line) => line["hook"])).toEqual([
      "start",
      "close",
    ]);
  });
});

describe("SIGUSR1", () => {
  test("turns debug on and off again", async () => {
    const proxy = await start();
    const debugLines = (): number => proxy.logs.filter((line) => line["level"] === "debug").length;
    const levelLines = (): number =>
      proxy.logs.filter((line) => /level/i.test(JSON.stringify({ ...line, level: undefined })))
        .length;
    proxy.signal("SIGUSR1");
    await eventually(() => levelLines() >= 1);
    await get(proxy.forward, `${origin.url}/`);
    proxy.signal("SIGUSR1");
    await eventually(() => levelLines() >= 2);
    const before = debugLines();
    await get(proxy.forward, `${origin.url}/`);
    await proxy.log((line) => line["msg"] === "flow");
    expect(debugLines()).toBe(before);
    expect((await proxy.health("/healthz")).status).toBe(200);
  });

  test("LOG_LEVEL sets the level", async () => {
    const proxy = await own(ProxyProcess.start(settings(), { env: { LOG_LEVEL: "debug" } }));
    expect(proxy.logs.length).toBeGreaterThan(0);
    expect((await get(proxy.forward, `${origin.url}/`)).status).toBe(200);
  });
});
