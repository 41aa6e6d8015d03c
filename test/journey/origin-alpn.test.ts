/** What origins make of a client that offers http/1.1 alone, where `upstream_http2` is auto. */
import type { Socket } from "node:net";
import { createServer as createTls, type Server as TlsServer } from "node:tls";
import { createServer as createHttps } from "node:https";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { type AlpnFront, alpnFront } from "../support/alpn-front.ts";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { type ServerCertificate, TestAuthority } from "../support/certs.ts";
import { oneThread } from "../support/program.ts";
import { readAll, TlsOrigin } from "../support/tls-origin.ts";

const host = "api.allowed.test";

let authority: TestAuthority;
let certificate: ServerCertificate;
const closing: (() => unknown)[] = [];

beforeAll(async () => {
  authority = await TestAuthority.create();
  certificate = await authority.server([host]);
});
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
});

async function bench(
  onOthers: (socket: Socket) => void,
  onH2?: (socket: Socket) => void,
): Promise<{ proxy: BridgeProxy; front: AlpnFront; origin: TlsOrigin; target: string }> {
  const origin = await TlsOrigin.start(certificate, "h2");
  closing.push(() => origin.close());
  origin.on("/echo", async (request, response, seen) => {
    response.end(await readAll(request, seen));
  });
  const front = await alpnFront(
    onH2 ?? ((socket) => origin.server.emit("connection", socket)),
    onOthers,
  );
  closing.push(() => front.close());
  const file = oneThread("each thread learns for itself what an origin speaks", {});
  const proxy = await BridgeProxy.start({ ports: [front.port], originCa: authority.caPem, file });
  closing.push(() => proxy.close());
  return { proxy, front, origin, target: `${host}:${front.port}` };
}

/** Shakes hands without naming a protocol, and then does as it is told. */
function silentAboutAlpn(then: (socket: Socket) => void): TlsServer {
  const server = createTls({ ...certificate });
  server.on("tlsClientError", () => undefined);
  server.on("secureConnection", (socket) => {
    socket.on("error", () => undefined);
    then(socket);
  });
  return server;
}

/** Alerts of RFC 8446 section 6.2, before any key is agreed on. */
const alert = (description: number): Buffer => Buffer.of(21, 3, 3, 0, 2, 2, description);

async function post(proxy: BridgeProxy, target: string): Promise<[number, string]> {
  const wire = await proxy.http1(target);
  const { status, text } = await wire.exchange(
    `POST /echo HTTP/1.1\r\nHost: ${target}\r\nContent-Length: 5\r\n\r\nwhole`,
  );
  wire.close();
  return [status, text];
}

describe("an origin that speaks nothing but h2 is learned when it ends the handshake for http/1.1", () => {
  const endings: readonly [name: string, end: () => (socket: Socket) => void][] = [
    ["by closing the connection", () => (socket) => socket.end()],
    ["by a reset", () => (socket) => socket.resetAndDestroy()],
    ["with handshake_failure", () => (socket) => socket.end(alert(40))],
    ["with internal_error", () => (socket) => socket.end(alert(80))],
    ["with no_application_protocol", () => (socket) => socket.end(alert(120))],
    [
      "by finishing it without a protocol and closing",
      () => {
        const server = silentAboutAlpn((socket) => socket.end());
        return (socket) => server.emit("connection", socket);
      },
    ],
  ];

  test.each(endings)("%s", async (_name, end) => {
    const { proxy, front, origin, target } = await bench(end());
    // The very first one is a POST: no byte of it may be lost on a connection that leads nowhere.
    expect(await post(proxy, target)).toEqual([200, "whole"]);
    expect((await proxy.get(target, "/echo")).status).toBe(200);
    expect(await post(proxy, target)).toEqual([200, "whole"]);
    expect(origin.seen.map(({ httpVersion }) => httpVersion)).toEqual(["2.0", "2.0", "2.0"]);
    expect(front.offers.others).toBe(1);
  });
});

test("an origin that knows nothing of ALPN is spoken to in HTTP/1.1, and asked for h2 once", async () => {
  const server = createHttps({ ...certificate, ALPNProtocols: undefined }, (request, response) => {
    response.setHeader("connection", "close");
    response.end(request.httpVersion);
  });
  const tls = (socket: Socket): unknown => server.emit("connection", socket);
  const { proxy, front, target } = await bench(tls, tls);
  for (let count = 0; count < 3; count += 1)
    expect((await proxy.get(target, "/")).text).toBe("1.1");
  expect(front.offers).toEqual({ h2: 1, others: 3 });
});

test("an origin that ends every handshake is a 502 that names TLS", async () => {
  const { proxy, front, target } = await bench(
    (socket) => socket.end(),
    (socket) => socket.end(),
  );
  for (let count = 0; count < 3; count += 1) {
    const { status, text } = await proxy.get(target, "/");
    expect(status).toBe(502);
    expect(text).toContain("upstream.tls");
  }
  expect(front.offers.h2).toBe(1);
});
