/** Clients that ask for much and do not read: what waits for them in memory counts, and whoever read least recently goes. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AttackedProxy, RawClient, RawOrigin, until } from "../support/attack-bench.ts";
import { owner } from "../support/owner.ts";

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
    await until(async () => ((await proxy.metric(crowded)) > 0 ? true : undefined));
    const good = await open("/small");
    await until(() => (good.seen.endsWith("s".repeat(mebibyte)) ? true : undefined));
    good.socket.destroy();
    const line = await proxy.line(({ msg }) => msg.startsWith("connections are closed to make"));
    expect(line["full"]).toBe("limits.max_buffered");
    if (way !== "tunnel") {
      const cut = await proxy.line(({ msg, code }) => msg === "flow" && code !== undefined);
      expect(cut["code"]).toBe("proxy.overloaded");
      expect(cut["reason"]).toContain("limits.max_buffered");
    }
    expect(proxy.lines.filter((one) => one["path"] === "/small" && one["code"])).toEqual([]);
    for (const { socket } of stalled) socket.destroy();
  });
});
