/** Clients that ask for much and do not read: what waits for them in memory counts, and whoever read least recently goes. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AttackedProxy, RawOrigin } from "../support/attack-bench.ts";
import { RawClient } from "../support/http-client.ts";
import { eventually } from "../support/eventually.ts";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { owner } from "../support/owner.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
const mebibyte = 1_048_576;
/** More than the kernel takes on both sides of a connection. */
const much = Buffer.alloc(32 * mebibyte, "x");
const readers = 16;
const crowded = 'authbridge_evicted_total{reason="reader"}';

let origin: RawOrigin;
let proxy: AttackedProxy;

beforeAll(async () => {
  origin = await own(
    RawOrigin.listen((socket, head) => {
      const body = head.includes("/small") ? Buffer.alloc(mebibyte, "s") : much;
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n`);
      socket.write(body);
    }),
  );
});

afterAll(() => expect(proxy.faults).toEqual([]));

async function start(): Promise<void> {
  proxy = await own(
    AttackedProxy.start({
      limits: { max_buffered: "2MiB" },
      listener: {
        roles: ["forward", "reverse"],
        reverse_proxy_addr: "127.0.0.1:0",
        reverse_proxy_backend: `http://127.0.0.1:${origin.port}`,
      },
    }),
  );
}

const host = (): string => `127.0.0.1:${origin.port}`;

/** Clients of one way in; each sees its head and reads no further. */
const ways: Readonly<Record<string, (path: string) => Promise<RawClient>>> = {
  forward: async (path) => {
    const client = await RawClient.connect(proxy.forward);
    return client.send(`GET http://${host()}${path} HTTP/1.1\r\nHost: ${host()}\r\n\r\n`);
  },
  reverse: async (path) => {
    const client = await RawClient.connect(proxy.reverse);
    return client.send(`GET ${path} HTTP/1.1\r\nHost: agent.test\r\n\r\n`);
  },
  tunnel: async (path) => {
    const client = await RawClient.connect(proxy.forward);
    client.send(`CONNECT ${host()} HTTP/1.1\r\nHost: ${host()}\r\n\r\n`);
    await client.sees("Established\r\n\r\n");
    return client.send(`GET ${path} HTTP/1.1\r\nHost: ${host()}\r\n\r\n`);
  },
};

describe.each(Object.keys(ways))("%s", (way) => {
  const open = ways[way] ?? (() => Promise.reject(new Error(way)));

  test("some of them go, and whoever reads is served", async () => {
    await start();
    const stalled: RawClient[] = [];
    for (let at = 0; at < readers; at += 1) {
      const client = await open(`/${at}`);
      await client.sees("xxxx");
      client.socket.pause();
      stalled.push(client);
    }
    await eventually(async () => (await proxy.metric(crowded)) > 0);
    const good = await open("/small");
    await good.sees("s".repeat(mebibyte));
    good.socket.destroy();
    const line = await proxy.log(({ msg }) => msg.startsWith("connections are closed to make"));
    expect(line["full"]).toBe("limits.max_buffered");
    if (way !== "tunnel") {
      const cut = await proxy.log(({ msg, code }) => msg === "flow" && code !== undefined);
      expect(cut["code"]).toBe("proxy.overloaded");
      expect(cut["reason"]).toContain("limits.max_buffered");
    }
    expect(proxy.logs.filter((one) => one["path"] === "/small" && one["code"])).toEqual([]);
    for (const { socket } of stalled) socket.destroy();
  });
});

test("streams of HTTP/2 whose client gives them no window", async () => {
  const authority = await TestAuthority.create();
  const secure = await own(TlsOrigin.start(await authority.server(["api.allowed.test"])));
  secure.on("/large", (_request, response) => void response.end(Buffer.alloc(mebibyte, "x")));
  secure.on("/small", (_request, response) => void response.end("small"));
  const bridge = await own(
    BridgeProxy.start({
      ports: [secure.port],
      originCa: authority.caPem,
      limits: { max_buffered: "1MiB" },
    }),
  );
  const at = secure.at("api.allowed.test");
  const greedy = await bridge.http2(at, {}, { settings: { initialWindowSize: 0 } });
  for (let stream = 0; stream < 60; stream += 1) {
    greedy.request({ ":path": "/large" }).on("error", () => undefined);
  }
  await eventually(
    async () => (await bridge.metric(/^authbridge_evicted_total\{reason="reader"\}/)) > 0,
  );
  const good = await bridge.http2(at);
  const stream = good.request({ ":path": "/small" });
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  expect(Buffer.concat(chunks).toString()).toBe("small");
  greedy.destroy();
  good.destroy();
});
