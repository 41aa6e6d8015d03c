/** Limits of client connections, which hold on a plain port and inside a bridged connection alike. */
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { HttpOrigin } from "../support/origin.ts";
import { TlsOrigin } from "../support/tls-origin.ts";
import { RawClient } from "../support/http-client.ts";
import { eventually, within } from "../support/eventually.ts";

const allowed = "api.allowed.test";

let origin: TlsOrigin;
let plain: HttpOrigin;
let proxy: BridgeProxy;
let at: string;

beforeAll(async () => {
  const authority = await TestAuthority.create();
  origin = await TlsOrigin.start(await authority.server([allowed]));
  plain = await HttpOrigin.launch();
  proxy = await BridgeProxy.start({
    ports: [origin.port],
    originCa: authority.caPem,
    limits: { max_requests_per_connection: 2, max_streams_per_connection: 3 },
  });
  at = `${allowed}:${origin.port}`;
});

afterAll(async () => {
  await proxy?.close();
  await origin?.close();
  await plain?.close();
});

/** A connection on a plain port, and one inside TLS, with the target that a request on it has. */
const http1 = [
  [
    "plain",
    async () => ({
      wire: new RawClient(await proxy.dial()),
      target: `http://127.0.0.1:${plain.port}/`,
      host: `127.0.0.1:${plain.port}`,
    }),
  ],
  ["bridged", async () => ({ wire: await proxy.http1(at), target: "/", host: at })],
] as const;

describe("limits.max_requests_per_connection", () => {
  test.each(http1)("closes a %s connection after its last request", async (_name, open) => {
    const { wire, target, host } = await open();
    const ask = `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
    const first = await wire.exchange(ask);
    expect(first).toMatchObject({ status: 200 });
    expect(first.header("connection")).not.toBe("close");
    const second = await wire.exchange(ask);
    expect(second).toMatchObject({ status: 200 });
    expect(second.header("connection")).toBe("close");
    await wire.reader.toEnd();
  });

  test("ends an HTTP/2 session after its last stream, whose response arrives", async () => {
    const session = await proxy.http2(at);
    const closed = once(session, "close");
    for (let count = 0; count < 2; count += 1) {
      const stream = session.request({ ":path": "/", ":authority": at });
      const [head] = (await once(stream, "response")) as [Record<string, unknown>];
      expect(head[":status"]).toBe(200);
      stream.resume();
      await once(stream, "close");
    }
    await within("the end of the session", closed);
  });
});

test("limits.max_streams_per_connection is what an HTTP/2 client is told", async () => {
  const session = await proxy.http2(at);
  await eventually(() => expect(session.remoteSettings.maxConcurrentStreams).toBe(3));
  session.destroy();
});

test.each(http1)("an unknown expectation on a %s connection gets 417", async (_name, open) => {
  const { wire, target, host } = await open();
  const refused = await wire.exchange(
    `GET ${target} HTTP/1.1\r\nHost: ${host}\r\nExpect: wonders\r\n\r\n`,
  );
  expect(refused.status).toBe(417);
  expect(JSON.parse(refused.text)).toMatchObject({ error: "request.expectation-failed" });
  await wire.reader.toEnd();
});
