/** A message that has been through this proxy before is refused, on every HTTP surface of the forward port (RFC 9110 section 7.6.3). */
import { once } from "node:events";
import { afterAll, beforeAll, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { HttpOrigin } from "../support/origin.ts";
import { TlsOrigin } from "../support/tls-origin.ts";
import { RawClient } from "../support/http-client.ts";

const allowed = "api.allowed.test";

let plain: HttpOrigin;
let origin: TlsOrigin;
let proxy: BridgeProxy;
let at: string;
/** The Via field that this proxy writes. */
let via: string;

beforeAll(async () => {
  const authority = await TestAuthority.create();
  origin = await TlsOrigin.start(await authority.server([allowed]));
  plain = await HttpOrigin.launch();
  proxy = await BridgeProxy.start({ ports: [origin.port], originCa: authority.caPem });
  at = `${allowed}:${origin.port}`;
  const { status } = await askPlain("");
  expect(status).toBe(200);
  via = plain.requests.at(-1)?.header("via") ?? "";
  expect(via).toMatch(/^1\.1 authbridge-/);
});

afterAll(async () => {
  await proxy?.close();
  await origin?.close();
  await plain?.close();
});

async function askPlain(fields: string) {
  const wire = new RawClient(await proxy.dial());
  const host = `127.0.0.1:${plain.port}`;
  return wire.exchange(`GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n${fields}\r\n`);
}

test("a plain request", async () => {
  const before = plain.requests.length;
  const refused = await askPlain(`Via: 1.0 outer, ${via}\r\n`);
  expect(refused.status).toBe(508);
  expect(JSON.parse(refused.text)).toMatchObject({ error: "request.loop" });
  expect(plain.requests).toHaveLength(before);
});

test("a bridged request on HTTP/1.1", async () => {
  const refused = await proxy.get(at, "/loop1", `Via: ${via}\r\n`);
  expect(refused.status).toBe(508);
  expect(origin.requestsFor("/loop1")).toHaveLength(0);
});

test("a bridged request on HTTP/2", async () => {
  const session = await proxy.http2(at);
  const stream = session.request({ ":path": "/loop2", ":authority": at, via });
  const [head] = (await once(stream, "response")) as [Record<string, unknown>];
  expect(head[":status"]).toBe(508);
  expect(origin.requestsFor("/loop2")).toHaveLength(0);
  session.destroy();
});
