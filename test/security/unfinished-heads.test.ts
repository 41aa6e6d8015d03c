/** Connections that stop inside a large head: their bytes are bounded together, and the oldest go. */
import tls from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AttackedProxy, RawOrigin } from "../support/attack-bench.ts";
import { RawClient } from "../support/http-client.ts";
import { eventually } from "../support/eventually.ts";
import { block, frame, frameType, get as getFields, preface } from "../support/http2-frames.ts";
import { owner } from "../support/owner.ts";

const own = owner();
const evicted = 'authbridge_evicted_total{reason="head"}';
const count = 24;
/** A head that does not end. */
const unfinished = (start: string): string =>
  `${start}Host: agent.test\r\nX-Much: ${"y".repeat(12_000)}`;

let origin: RawOrigin;
let proxy: AttackedProxy;

beforeAll(async () => {
  origin = await own(
    RawOrigin.listen((socket) => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")),
  );
  proxy = await own(
    AttackedProxy.start({
      tls_bridge: { mode: "enabled", ca: "ephemeral" },
      limits: { max_buffered_heads: "128KiB", header_timeout: "10m", keep_alive_timeout: "10m" },
      listener: {
        roles: ["forward", "reverse"],
        reverse_proxy_addr: "127.0.0.1:0",
        reverse_proxy_backend: `http://127.0.0.1:${origin.port}`,
      },
    }),
  );
});

afterAll(() => expect(proxy.faults).toEqual([]));

const get = "GET /x HTTP/1.1\r\n";

describe.each(["forward", "reverse", "health"])("%s", (surface) => {
  test("some go, so that the rest fits, and whoever finishes a head is served", async () => {
    const before = await proxy.metric(evicted);
    const clients: RawClient[] = [];
    for (let at = 0; at < count; at += 1) {
      const client = await RawClient.connect(proxy.address(surface));
      clients.push(client.send(unfinished(get)));
    }
    // 128 KiB are ten such heads.
    await eventually(async () => (await proxy.metric(evicted)) - before >= count - 11);
    const good = await RawClient.connect(proxy.reverse);
    good.send(`${get}Host: agent.test\r\nX-Much: ${"y".repeat(30_000)}\r\n\r\n`);
    expect(await good.sees("ok")).toContain("HTTP/1.1 200");
    expect((await proxy.metric(evicted)) - before).toBeLessThan(count);
    for (const { socket } of [...clients, good]) socket.destroy();
    const line = await proxy.log(({ msg }) => msg.startsWith("connections are closed to make"));
    expect(line["full"]).toBe("limits.max_buffered_heads");
  });
});

describe.each(["http/1.1", "h2"])("bridge, %s", (protocol) => {
  /** TLS with the bridge, in a tunnel that goes nowhere before its first request. */
  async function bridged(): Promise<tls.TLSSocket> {
    const client = await RawClient.connect(proxy.forward);
    client.send("CONNECT bridged.test:443 HTTP/1.1\r\nHost: bridged.test:443\r\n\r\n");
    await client.sees("Established\r\n\r\n");
    const { socket } = client;
    socket.removeAllListeners("data");
    const options = { socket, servername: "bridged.test", ALPNProtocols: [protocol] };
    const secure = tls.connect({ ...options, rejectUnauthorized: false });
    secure.on("error", () => undefined);
    await new Promise((resolve) => secure.once("secureConnect", resolve));
    return secure;
  }

  test("some go, so that the rest fits", async () => {
    const before = await proxy.metric(evicted);
    const fields: [string, string][] = [
      ...getFields("bridged.test"),
      ["x-much", "y".repeat(12_000)],
    ];
    const headers = frame(frameType.headers, 0, 1, block(fields));
    const start = Buffer.concat([preface, frame(frameType.settings, 0, 0), headers]);
    const sockets: tls.TLSSocket[] = [];
    for (let at = 0; at < count; at += 1) {
      const socket = await bridged();
      socket.write(protocol === "h2" ? start : unfinished(get));
      sockets.push(socket);
    }
    await eventually(async () => (await proxy.metric(evicted)) - before >= count - 11);
    for (const socket of sockets) socket.destroy();
  });
});

test("a head behind a whole request counts, too", async () => {
  const before = await proxy.metric(evicted);
  const body = "POST /x HTTP/1.1\r\nHost: agent.test\r\nContent-Length: 3\r\n\r\nabc";
  const clients: RawClient[] = [];
  for (const whole of [`${get}Host: agent.test\r\n\r\n`, body]) {
    for (let at = 0; at < count; at += 1) {
      const client = await RawClient.connect(proxy.reverse);
      clients.push(client.send(`${whole}${unfinished(get)}`));
    }
  }
  await eventually(async () => (await proxy.metric(evicted)) - before >= 2 * count - 11);
  for (const { socket } of clients) socket.destroy();
});

test("a few bytes behind a request are no head that has to go before large ones", async () => {
  const before = await proxy.metric(evicted);
  const kept = await RawClient.connect(proxy.reverse);
  // Some clients end a body with an empty line (RFC 9112 section 2.2).
  kept.send(`${get}Host: agent.test\r\n\r\n\r\n`);
  await kept.sees("ok");
  const clients: RawClient[] = [];
  for (let at = 0; at < count; at += 1) {
    const client = await RawClient.connect(proxy.reverse);
    clients.push(client.send(unfinished(get)));
  }
  await eventually(async () => (await proxy.metric(evicted)) - before >= count - 11);
  kept.send(`${get}Host: agent.test\r\n\r\n`);
  expect((await kept.sees("ok", 2)).split("ok")).toHaveLength(3);
  for (const { socket } of [...clients, kept]) socket.destroy();
});

test("clients that keep their connections hold nothing, whatever they sent", async () => {
  const before = await proxy.metric(evicted);
  const clients: RawClient[] = [];
  for (let at = 0; at < count; at += 1) {
    const client = await RawClient.connect(proxy.reverse);
    const fields = `Host: agent.test\r\nX-Much: ${"y".repeat(20_000)}\r\n`;
    client.send(`POST /x HTTP/1.1\r\n${fields}Transfer-Encoding: chunked\r\n\r\n`);
    client.send(`2000\r\n${"z".repeat(0x2000)}\r\n0\r\n\r\n`);
    await client.sees("ok");
    clients.push(client);
  }
  for (const client of clients) {
    client.send(`${get}Host: agent.test\r\n\r\n`);
    expect((await client.sees("ok", 2)).split("ok")).toHaveLength(3);
  }
  expect(await proxy.metric(evicted)).toBe(before);
  for (const { socket } of clients) socket.destroy();
});
