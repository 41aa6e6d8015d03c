/** What a thread that ends had of budgets: what was let go stays counted, the rest goes back. */
import { connect, type Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get, renderRequest, type RequestShape } from "../support/http-client.ts";
import { HttpOrigin, reply, TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";

const own = owner();
const threadPlugins = fileURLToPath(new URL("../support/thread-plugins.ts", import.meta.url));
/** What each tunnel carries. */
const chunk = 1_000;
let origin: HttpOrigin;
let raw: TcpOrigin;
let sent = 0;
let carried = 0;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  raw = await own(
    TcpOrigin.start(async ({ reader, socket }) => {
      socket.on("error", () => undefined);
      await reader.exactly(chunk);
      carried += chunk;
      socket.once("end", () => socket.end());
    }),
  );
});
beforeEach(() => {
  sent = 0;
  carried = 0;
  origin.on("/pass/sent", async () => {
    sent += 1;
    await new Promise(() => undefined);
    return reply(200, "");
  });
});

const isFile = { state: { store: "file", path: "state.log" } };
const stores: [string, () => Promise<Settings> | Settings][] = [
  ["memory", () => ({})],
  ["a file", () => isFile],
];
if (hasRedis) {
  stores.push([
    "Redis",
    async () => ({
      state: { store: "redis", url: (await own(RedisServer.start())).url, timeout: "5s" },
    }),
  ]);
}

/** A thread is ended before the budget is asked; what is held has been counted and not sent. */
async function start(limit: object, rest: object = {}, over: Settings = {}): Promise<ProxyProcess> {
  const config = { limits: [{ name: "n", window: "day", ...limit }], ...rest };
  const file = settings({
    plugin_modules: [threadPlugins],
    workers: 2,
    pipeline: {
      outbound: {
        default: "allow",
        plugins: [{ name: "thread", config: {} }, { name: "budgets", config }, "holding"],
      },
    },
  });
  return own(ProxyProcess.start(merge(file, over)));
}

async function used(proxy: ProxyProcess): Promise<number> {
  const { text } = await proxy.sessions("/v1/budgets");
  return Number(/"used":(\d+)/.exec(text)?.[1] ?? 0);
}

async function endOne(proxy: ProxyProcess): Promise<void> {
  await get(proxy.forward, "http://thread.test/exit").catch(() => undefined);
  await proxy.log(({ msg }) => msg.startsWith("a thread serves in place"));
}

/** A client that waits for a response, and whether it has lost its connection. */
class Client {
  isLost = false;
  /** Something has come. */
  isOpen = false;
  readonly socket: Socket;

  constructor({ forward: { host, port } }: ProxyProcess, request: RequestShape) {
    this.socket = connect(port, host);
    this.socket.on("error", () => undefined);
    this.socket.once("close", () => (this.isLost = true));
    this.socket.on("data", () => (this.isOpen = true));
    this.socket.write(renderRequest(request));
  }

  static async ask(proxy: ProxyProcess, request: RequestShape): Promise<Client> {
    const one = new Client(proxy, request);
    await own({ close: () => void one.socket.destroy() });
    return one;
  }
}

const fifty = (proxy: ProxyProcess, path: string): Promise<Client[]> =>
  Promise.all(Array.from({ length: 50 }, () => Client.ask(proxy, { target: origin.url + path })));

describe.each(stores)("in %s", (_name, state) => {
  test("what was counted for a request that was not sent goes back, what was sent stays", async () => {
    const proxy = await start({ unit: "requests", limit: 100 }, {}, await state());
    const held = await fifty(proxy, "/pass/held");
    await fifty(proxy, "/pass/sent");
    await eventually(async () => sent === 50 && (await used(proxy)) === 100);
    await endOne(proxy);
    await eventually(() => held.some(({ isLost }) => isLost));
    await eventually(async () =>
      expect(await used(proxy)).toBe(100 - held.filter(({ isLost }) => isLost).length),
    );
    for (const { socket } of held) socket.destroy();
    await eventually(async () => (await used(proxy)) === sent);
  });

  test("what it had leased goes back but for what was sent", async () => {
    const proxy = await start({ unit: "requests", limit: 10_000 }, { lease: 0.4 }, await state());
    for (let round = 0; round < 4; round += 1)
      await Promise.all(Array.from({ length: 20 }, () => get(proxy.forward, `${origin.url}/pass`)));
    const held = await fifty(proxy, "/pass/held");
    const going = await fifty(proxy, "/pass/sent");
    await eventually(async () => sent === 50 && (await used(proxy)) === 180);
    await endOne(proxy);
    await eventually(() => held.some(({ isLost }) => isLost));
    await eventually(async () =>
      expect(await used(proxy)).toBe(180 - held.filter(({ isLost }) => isLost).length),
    );
    for (const { socket } of [...held, ...going]) socket.destroy();
    await eventually(async () => (await used(proxy)) === 130);
  });
});

test("tokens: a call that waits behind the budget gives its reservation back, one that was sent does not", async () => {
  const proxy = await start({ unit: "bytes", limit: 1_000_000_000 }, { reserve_bytes: 100_000 });
  const held = await fifty(proxy, "/pass/held");
  const going = await fifty(proxy, "/pass/sent");
  await eventually(async () => sent === 50 && (await used(proxy)) >= 10_000_000);
  await endOne(proxy);
  await eventually(() => held.some(({ isLost }) => isLost));
  for (const { socket } of [...held, ...going]) socket.destroy();
  const lost = going.filter(({ isLost }) => isLost).length;
  await eventually(async () => {
    const now = await used(proxy);
    expect(now).toBeGreaterThanOrEqual(lost * 100_000);
    expect(now).toBeLessThan(lost * 100_000 + 1_000_000);
  });
});

describe("bytes that a connection had taken ahead", () => {
  test.each([{}, { lease: 0.1 }])("go back, what went by stays: %j", async (rest) => {
    const proxy = await start({ unit: "bytes_up", limit: 100_000_000, by: [] }, rest);
    const target = raw.authority;
    const tunnels = await Promise.all(
      Array.from({ length: 40 }, () => Client.ask(proxy, { method: "CONNECT", target })),
    );
    await eventually(() => tunnels.every(({ isOpen }) => isOpen));
    for (const { socket } of tunnels) socket.write(Buffer.alloc(chunk));
    await eventually(() => carried === 40_000);
    expect(await used(proxy)).toBeGreaterThan(40_000);
    await endOne(proxy);
    await eventually(() => tunnels.some(({ isLost }) => isLost));
    for (const { socket } of tunnels) socket.destroy();
    await eventually(async () => expect(await used(proxy)).toBe(40_000));
  });
});

test("again and again, under load: no more is ever let go than there is, and all there is", async () => {
  let reached = 0;
  origin.on("/pass/load", () => {
    reached += 1;
    return reply(200, "");
  });
  const proxy = await start({ unit: "requests", limit: 500 });
  for (let round = 0; round < 3; round += 1) {
    const held = await fifty(proxy, "/pass/held");
    const burst = Array.from({ length: 100 }, () =>
      get(proxy.forward, `${origin.url}/pass/load`).catch(() => undefined),
    );
    await get(proxy.forward, "http://thread.test/exit").catch(() => undefined);
    await Promise.all(burst);
    for (const { socket } of held) socket.destroy();
    await eventually(async () => (await proxy.metric("authbridge_threads")) === 2);
  }
  const counted = await eventually(async () => {
    const now = await used(proxy);
    expect(now).toBeLessThanOrEqual(300);
    return now;
  });
  // What was sent and not answered is counted, whether it arrived or not.
  expect(counted).toBeGreaterThanOrEqual(reached);
});
