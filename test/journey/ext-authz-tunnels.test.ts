/** ext-authz where requests come in tunnels: CONNECT, the bridge with both versions of HTTP, WebSockets. */
import { once } from "node:events";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { deniedAnswer, GrpcAuthz, okAnswer } from "../support/authz-server.ts";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const host = "api.allowed.test";

let service: GrpcAuthz;
let origin: TlsOrigin;
let authority: TestAuthority;
let proxy: BridgeProxy;
let at: string;

const asked = () =>
  service.calls.map(({ attributes: { request } }) => `${request.http.method} ${request.http.path}`);

const start = (more: object = {}, ports = [origin.port]) => {
  const grpc = { target_uri: service.url, timeout: "20s" };
  const config = { grpc_service: grpc, include_tls_session: true, ...more };
  return BridgeProxy.start({
    ports,
    originCa: authority.caPem,
    plugins: [{ name: "ext-authz", config }],
  });
};

beforeAll(async () => {
  service = await GrpcAuthz.start();
  authority = await TestAuthority.create();
  origin = await TlsOrigin.start(await authority.server([host]), "both");
  at = origin.at(host);
  proxy = await start();
});
beforeEach(() => {
  service.calls.length = 0;
  service.answer = ({ attributes: { request } }) =>
    request.http.path.startsWith("/no") ? deniedAnswer(418, "no tea") : okAnswer;
});
afterAll(async () => {
  await proxy.close();
  await origin.close();
  await service.close();
});

describe("in the bridge", () => {
  test("the CONNECT is asked about, then each request", async () => {
    const wire = await proxy.http1(at);
    expect((await wire.ask({ target: "/a?x=1", headers: { Host: at } })).status).toBe(200);
    const refused = await wire.ask({ target: "/no", headers: { Host: at } });
    expect(refused.status).toBe(418);
    expect(refused.text).toBe("no tea");
    wire.close();
    expect(asked()).toEqual(["CONNECT ", "GET /a?x=1", "GET /no"]);
    const [connect, request] = service.calls.map(({ attributes }) => attributes);
    expect(connect?.request.http).toMatchObject({ host: at, path: "" });
    expect(request?.request.http).toMatchObject({ host: at, scheme: "https" });
    expect(request?.tls_session).toEqual({ sni: host });
  });

  test("requests of HTTP/2 are asked about", async () => {
    const session = await proxy.http2(at);
    const ask = async (path: string): Promise<number> => {
      const stream = session.request({ ":path": path });
      stream.resume();
      const [fields] = (await once(stream, "response")) as [{ ":status": number }];
      return fields[":status"];
    };
    expect(await ask("/a")).toBe(200);
    expect(await ask("/no")).toBe(418);
    session.destroy();
    expect(service.last.request.http.protocol).toBe("HTTP/2");
  });

  test("an upgrade is asked about with its protocol, and a denial is the response", async () => {
    const wire = await proxy.http1(at);
    const answer = await wire.ask({
      target: "/no/socket",
      headers: {
        Host: at,
        Connection: "Upgrade",
        Upgrade: "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
      },
    });
    wire.close();
    expect(answer.status).toBe(418);
    expect(service.last.request.http.headers).toMatchObject({
      upgrade: "websocket",
      connection: "upgrade",
      "sec-websocket-version": "13",
    });
  });
});

describe("a CONNECT that is denied", () => {
  test.each([
    [451, 451],
    [200, 403],
  ])("with %i is answered %i, and nothing is dialled", async (denied, seen) => {
    service.answer = () => deniedAnswer(denied, "not there");
    const plain = await start({}, []);
    try {
      const before = origin.accepted;
      const { status, answer } = await plain.connect(at);
      expect(status).toBe(seen);
      expect(answer?.text).toBe("not there");
      expect(origin.accepted).toBe(before);
    } finally {
      await plain.close();
    }
  });
});

describe("connect: inspect", () => {
  test("asks inside only, and refuses a tunnel that stays closed to it", async () => {
    const inspecting = await start({ connect: "inspect" });
    const opaque = await start({ connect: "inspect" }, []);
    try {
      expect((await inspecting.get(at, "/a")).status).toBe(200);
      expect(asked()).toEqual(["GET /a"]);
      const before = origin.accepted;
      // The tunnel opens for HTTP without TLS, and for nothing else.
      await expect(opaque.tls(at, { ca: authority.caPem })).rejects.toThrow();
      expect(origin.accepted).toBe(before);
      expect(asked()).toEqual(["GET /a"]);
    } finally {
      await inspecting.close();
      await opaque.close();
    }
  });
});
