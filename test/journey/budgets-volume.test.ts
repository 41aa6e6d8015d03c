/** Data that leaves by volume: it is counted while it goes, and ends when the budget is used up, whatever carries it. */
import { createServer, request as httpRequest, type Server } from "node:http";
import { createServer as createTcp, type AddressInfo, type Socket } from "node:net";
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { connectStream, proxySession } from "../support/connect-stream.ts";
import { eventually, within } from "../support/eventually.ts";
import { openTunnel, request, type RawResponse } from "../support/http-client.ts";
import { owner } from "../support/owner.ts";
import { oneThread, type Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";
import { openSocks } from "../support/socks-client.ts";

const own = owner();
/** What came: bodies, what followed an upgrade, what came through tunnels. */
let arrived = 0;
let http: Server;
const upgradedAt = new Set<Duplex>();
let raw: ReturnType<typeof createTcp>;

const count = (stream: Duplex): void => {
  stream.on("error", () => undefined);
  stream.on("data", (chunk: Buffer) => (arrived += chunk.length));
};

beforeAll(async () => {
  http = createServer((incoming, response) => {
    incoming.on("error", () => undefined);
    incoming.on("data", (chunk: Buffer) => (arrived += chunk.length));
    incoming.on("end", () => response.end(incoming.url === "/big" ? "x".repeat(400_000) : "ok"));
  });
  http.on("upgrade", (_request, socket: Duplex, head: Buffer) => {
    upgradedAt.add(socket);
    arrived += head.length;
    socket.write("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    count(socket);
  });
  raw = createTcp({ allowHalfOpen: true }, (socket: Socket) => {
    count(socket);
    socket.on("end", () => socket.end());
  });
  for (const server of [http, raw]) {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
  }
});
afterAll(() => {
  http.closeAllConnections();
  http.close();
  raw.close();
});
beforeEach(() => {
  arrived = 0;
});

const portOf = (server: { address(): unknown }): number => (server.address() as AddressInfo).port;
const authority = (server: { address(): unknown }): string => `127.0.0.1:${portOf(server)}`;

const limitOf = (limit: number, more: object = {}): object => ({
  name: "up",
  unit: "bytes_up",
  limit,
  window: "day",
  by: ["caller"],
  ...more,
});

function start(
  limits: readonly object[],
  over: Settings = {},
  step: object = {},
): Promise<ProxyProcess> {
  const chain = outbound({ name: "budgets", config: { limits }, ...step });
  return own(ProxyProcess.start(merge(settings(), merge(chain, over))));
}

function post(proxy: ProxyProcess, size: number, path = "/"): Promise<RawResponse> {
  const host = authority(http);
  const headers = { Host: host };
  const target = `http://${host}${path}`;
  return request(proxy.forward, { method: "POST", target, headers, body: "x".repeat(size) });
}

/** A body whose length nobody knows before: its response, or undefined where the connection broke. */
function stream(proxy: ProxyProcess, chunks: number, size: number): Promise<RawUpload> {
  const { host, port } = proxy.forward;
  const path = `http://${authority(http)}/`;
  const sent = httpRequest({
    host,
    port,
    method: "POST",
    path,
    agent: false,
    headers: { Host: authority(http) },
  });
  return new Promise((resolve) => {
    sent.on("error", () => resolve({ status: 0, text: "" }));
    sent.on("response", (response) => {
      let text = "";
      response.on("data", (part: Buffer) => (text += part.toString()));
      response.on("close", () => resolve({ status: response.statusCode ?? 0, text }));
      response.on("error", () => undefined);
    });
    let at = 0;
    const more = (): void => {
      while (at < chunks && !sent.destroyed) {
        at += 1;
        if (!sent.write(Buffer.alloc(size, "x"))) {
          sent.once("drain", more);
          return;
        }
      }
      if (at >= chunks) sent.end();
    };
    more();
  });
}
interface RawUpload {
  readonly status: number;
  readonly text: string;
}

/** Sends until the other side has enough of it. */
async function pour(tunnel: Duplex, chunks: number, size: number): Promise<void> {
  tunnel.on("error", () => undefined);
  tunnel.resume();
  const closed = new Promise<void>((resolve) => tunnel.once("close", () => resolve()));
  for (let at = 0; at < chunks && !tunnel.destroyed; at += 1) {
    if (tunnel.write(Buffer.alloc(size, "x"))) continue;
    await Promise.race([once(tunnel, "drain").catch(() => undefined), closed]);
  }
  tunnel.end();
  await within("the tunnel is closed", closed);
}

async function upgraded(proxy: ProxyProcess): Promise<Duplex> {
  const { host, port } = proxy.forward;
  const path = `http://${authority(http)}/socket`;
  const headers = {
    Host: authority(http),
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
  };
  const asked = httpRequest({ host, port, path, headers, agent: false });
  asked.end();
  const [response, socket] = (await within("an upgrade", once(asked, "upgrade"))) as [
    { readonly statusCode: number },
    Duplex,
  ];
  expect(response.statusCode).toBe(101);
  socket.on("error", () => undefined);
  return socket;
}

const exceeded = (proxy: ProxyProcess): Promise<number> =>
  proxy.metric("authbridge_plugin_events_total", { event: "exceeded" });

const used = async (proxy: ProxyProcess): Promise<number> =>
  Number(/"used":(\d+)/.exec((await proxy.sessions("/v1/budgets")).text)?.[1]);

describe("requests", () => {
  test("by volume over many: what fits goes, what does not is refused before any of it has", async () => {
    const proxy = await start([limitOf(10_000)]);
    const statuses = [];
    for (let at = 0; at < 5; at += 1) statuses.push((await post(proxy, 3_000)).status);
    expect([statuses, arrived]).toEqual([[200, 200, 200, 429, 429], 9_000]);
    const refused = await post(proxy, 3_000);
    expect(JSON.parse(refused.text)).toMatchObject({
      error: "budget.exceeded",
      message: expect.stringMatching(
        /"up" has not enough left: 9\d{3} of 10000 bytes sent \(day\)/,
      ),
      details: { budget: "up", unit: "bytes_up", limit: 10_000 },
    });
    expect((await post(proxy, 10)).status).toBe(200);
    // Names, values and the target count as well.
    const host = authority(http);
    const headers = { Host: host, "X-Data": "y".repeat(2_000) };
    expect((await request(proxy.forward, { target: `http://${host}/`, headers })).status).toBe(429);
  });

  test("a long upload of which nobody knows the length ends in its middle, with one refusal", async () => {
    const proxy = await start([limitOf(1_000_000)]);
    const { status, text } = await stream(proxy, 64, 65_536);
    // Who sends on may lose the response to the reset of the connection.
    expect([0, 429]).toContain(status);
    if (status === 429) expect(text).toContain('"budget":"up"');
    expect(arrived).toBeLessThanOrEqual(1_000_000);
    await eventually(async () => (await exceeded(proxy)) === 1);
    const events = (await proxy.sessions("/v1/sessions/default")).text;
    expect(events).toContain('"reason":"budget_exceeded"');
    await eventually(async () => {
      const taken = await used(proxy);
      return taken > 800_000 && taken <= 1_000_000;
    });
  });

  test("a hundred at once never send more together", async () => {
    const proxy = await start([limitOf(200_000)]);
    await Promise.all(Array.from({ length: 100 }, () => stream(proxy, 4, 4_096)));
    expect(arrived).toBeLessThanOrEqual(200_000);
    await eventually(async () => (await used(proxy)) <= 200_000);
  });

  test("what was not sent costs nothing", async () => {
    const proxy = await start([limitOf(10_000)]);
    const gone = "127.0.0.1:1";
    const shape = { method: "POST", target: `http://${gone}/`, headers: { Host: gone } };
    for (let at = 0; at < 5; at += 1) {
      const answer = await request(proxy.forward, { ...shape, body: "x".repeat(8_000) });
      expect(answer.status).toBe(502);
      // It was on its way: the dial failed behind the decision to send it. A thread gives it back behind the response.
      await eventually(async () => (await used(proxy)) <= 2_000);
    }
  });

  test("soft: everything passes and is counted; under on_error: observe as well", async () => {
    const proxy = await start([limitOf(10_000, { mode: "soft" })]);
    expect((await stream(proxy, 8, 65_536)).status).toBe(200);
    expect(arrived).toBe(524_288);
    await eventually(async () => (await used(proxy)) >= 524_288);
    expect(await proxy.metric("authbridge_plugin_events_total", { event: "soft_exceeded" })).toBe(
      1,
    );
  });

  test("under on_error: observe everything passes and is counted", async () => {
    const watching = await start([limitOf(10_000)], {}, { on_error: "observe" });
    expect((await stream(watching, 8, 65_536)).status).toBe(200);
    await eventually(async () => (await used(watching)) >= 524_288);
  });
});

describe("what is no body", () => {
  test("a tunnel ends when the budget is used up, and the next one is refused", async () => {
    const proxy = await start([limitOf(500_000, { refuses: "all" })]);
    const { client } = await openTunnel(proxy.forward, authority(raw));
    await own(client);
    await pour(client.socket, 64, 65_536);
    expect(arrived).toBeLessThanOrEqual(500_000);
    await eventually(async () => (await exceeded(proxy)) === 1);
    await eventually(async () => (await used(proxy)) > 300_000);
    const next = await openTunnel(proxy.forward, authority(raw));
    await own(next.client);
    expect([next.answer.status, (await post(proxy, 1)).status]).toEqual([429, 429]);
  });

  test("over SOCKS and over CONNECT streams of HTTP/2 alike", async () => {
    const proxy = await start([limitOf(300_000)]);
    const socks = await openSocks(proxy.forward, "127.0.0.1", portOf(raw));
    await pour(socks.client.socket, 16, 16_384);
    const session = await proxySession(proxy.forward);
    const { status, stream: tunnel } = await connectStream(session, authority(raw));
    expect(status).toBe(200);
    await pour(tunnel, 16, 16_384);
    session.destroy();
    expect(arrived).toBeLessThanOrEqual(300_000);
    await eventually(async () => (await used(proxy)) > 16 * 16_384);
  });

  test("a WebSocket ends in its middle", async () => {
    const proxy = await start([limitOf(300_000)]);
    const socket = await upgraded(proxy);
    await pour(socket, 32, 32_768);
    expect(arrived).toBeLessThanOrEqual(300_000);
    await eventually(async () => (await exceeded(proxy)) === 1);
    await eventually(async () => (await used(proxy)) > 200_000);
  });

  test("what is open is not counted again by a reload, nor cut where its budget is used up", async () => {
    const limits = [
      { name: "requests", unit: "requests", limit: 1, window: "day" },
      { name: "bytes", unit: "bytes", limit: 100_000, window: "day" },
    ];
    const budget = { name: "budgets", config: { limits } };
    const withChain = (...before: string[]): Settings =>
      merge(settings(), outbound(...before, budget));
    const proxy = await own(ProxyProcess.start(withChain()));
    const socket = await upgraded(proxy);
    const { client } = await openTunnel(proxy.forward, authority(raw));
    await own(client);
    await proxy.reload(withChain("mcp-parser"));
    await proxy.reload(withChain());
    socket.write("still");
    client.socket.write("there");
    await eventually(() => arrived === 10);
    socket.destroy();
    for (const one of upgradedAt) one.destroy();
    client.socket.destroy();
    await eventually(async () => {
      // A generation shows what it has seen.
      expect((await post(proxy, 1)).status).toBe(429);
      const { text } = await proxy.sessions("/v1/budgets");
      expect(text).toMatch(
        /"budget":"requests".{0,80}"used":1,.*"budget":"bytes".{0,80}"used":10,/,
      );
    });
  });

  test("a hundred tunnels at once never carry more together, with two threads as well", async () => {
    const proxy = await start([limitOf(400_000)], { workers: 2 });
    const pouring = Array.from({ length: 100 }, async () => {
      const { client, answer } = await openTunnel(proxy.forward, authority(raw));
      await own(client);
      if (answer.status === 200) await pour(client.socket, 4, 4_096);
      else client.socket.destroy();
    });
    await Promise.all(pouring);
    expect(arrived).toBeLessThanOrEqual(400_000);
    await eventually(async () => (await used(proxy)) > 200_000);
  });

  test.skipIf(!hasRedis)(
    "two replicas: neither uploads nor tunnels carry more together",
    async () => {
      const server = await own(RedisServer.start());
      const state = { state: { store: "redis", url: server.url, timeout: "5s" } };
      const two = await Promise.all([
        start([limitOf(400_000)], state),
        start([limitOf(400_000)], state),
      ]);
      const all = Array.from({ length: 40 }, async (_, at) => {
        const proxy = two[at % 2];
        if (proxy === undefined) return;
        if (at % 4 < 2) await stream(proxy, 8, 4_096);
        else {
          const { client, answer } = await openTunnel(proxy.forward, authority(raw));
          await own(client);
          if (answer.status === 200) await pour(client.socket, 8, 4_096);
          else client.socket.destroy();
        }
      });
      await Promise.all(all);
      expect(arrived).toBeLessThanOrEqual(400_000);
      expect(arrived).toBeGreaterThan(200_000);
      await eventually(async () => (await used(two[0])) <= 400_000);
    },
  );

  test("a tunnel whose client has ended is not cut short", async () => {
    const proxy = await start([limitOf(500_000)], { workers: 2 });
    const { client } = await openTunnel(proxy.forward, authority(raw));
    await own(client);
    await pour(client.socket, 10, 16_384);
    await eventually(() => arrived === 10 * 16_384);
    await eventually(async () => (await used(proxy)) === 10 * 16_384);
  });
});

test("bytes down: a response ends, and the next request is refused", async () => {
  const limit = { name: "down", unit: "bytes_down", limit: 100_000, window: "day" };
  const why = "what arrives while the counters of all threads are asked goes by";
  const proxy = await start([limit], oneThread(why, {}));
  const { host, port } = proxy.forward;
  const path = `http://${authority(http)}/big`;
  const length = await new Promise<number>((resolve) => {
    const sent = httpRequest(
      { host, port, path, agent: false, headers: { Host: authority(http) } },
      (response) => {
        let sum = 0;
        response.on("data", (chunk: Buffer) => (sum += chunk.length));
        response.on("error", () => undefined);
        response.on("close", () => resolve(sum));
      },
    );
    sent.on("error", () => resolve(0));
    sent.end();
  });
  expect(length).toBeLessThan(400_000);
  await eventually(async () => (await post(proxy, 1)).status === 429);
  expect(await exceeded(proxy)).toBeGreaterThan(0);
});
