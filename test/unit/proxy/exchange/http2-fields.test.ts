/** A response as the client of a stream of HTTP/2 has it: its fields, and none where the client is gone. */
import { once } from "node:events";
import http2, { type ClientHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { PassThrough } from "node:stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { BodyBudget } from "../../../../src/http/body.ts";
import { Backlogs } from "../../../../src/net/backlogs.ts";
import { StallWatch } from "../../../../src/net/stall-watch.ts";
import { Cancellation } from "../../../../src/pipeline/cancellation.ts";
import { Http2Downstream } from "../../../../src/proxy/exchange/http2-downstream.ts";
import { streamUpgrade } from "../../../../src/proxy/exchange/upgrade.ts";
import { Metrics } from "../../../../src/telemetry/metrics.ts";

const backlogs = new Backlogs(new BodyBudget(1_000_000), () => undefined);
const stalls = new StallWatch(1_000);
const server = http2.createServer({ settings: { enableConnectProtocol: true } });
let client: ClientHttp2Session;

beforeAll(async () => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  client = http2.connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  await once(client, "remoteSettings");
});

afterAll(() => {
  client.close();
  server.close();
  stalls.close();
  backlogs.close();
});

async function answeredBy(
  respond: (stream: ServerHttp2Stream) => void,
  asked: http2.OutgoingHttpHeaders = { ":path": "/" },
): Promise<http2.IncomingHttpHeaders> {
  server.once("stream", respond);
  const stream = client.request(asked, { endStream: asked[":protocol"] === undefined });
  const [fields] = (await once(stream, "response")) as [http2.IncomingHttpHeaders];
  stream.close();
  return fields;
}

function downstreamOf(stream: ServerHttp2Stream): Http2Downstream {
  const head = { method: "GET", fields: {}, raw: [] };
  return new Http2Downstream(stream, head, { bodyTimeoutMs: 0, readerTimeoutMs: 0, backlogs });
}

test("a field may have the name of a member that every object has", async () => {
  const fields = await answeredBy((stream) => {
    const downstream = downstreamOf(stream);
    downstream.writeHead(200, [
      "Constructor",
      "a",
      "__proto__",
      "b",
      "Set-Cookie",
      "c",
      "set-cookie",
      "d",
    ]);
    downstream.end();
  });
  expect(Object.entries(fields)).toEqual(
    expect.arrayContaining([
      ["constructor", "a"],
      ["__proto__", "b"],
      ["set-cookie", ["c", "d"]],
    ]),
  );
});

test("a stream that was gone when something was to be said on it is over", async () => {
  const { promise: opened, resolve: open } = Promise.withResolvers<ServerHttp2Stream>();
  server.once("stream", (stream) => open(stream.on("error", () => undefined)));
  const asked = client.request({ ":path": "/" }).on("error", () => undefined);
  const stream = await opened;
  asked.close(http2.constants.NGHTTP2_CANCEL);
  await new Promise((resolve) => stream.once("close", resolve));
  expect(await new Promise((resolve) => downstreamOf(stream).onClose(resolve))).toBe(false);
});

test("a WebSocket is given every cookie of its handshake", async () => {
  const upstream = new PassThrough();
  const fields = await answeredBy(
    (stream) => {
      const parts = {
        idleTimeoutMs: 0,
        stalls,
        backlogs,
        metrics: new Metrics({ version: "0", generation: () => 1 }),
      };
      const upgrade = streamUpgrade({ ...parts, stream, protocol: "websocket" });
      const taken = ["Sec-WebSocket-Accept", "x", "Set-Cookie", "a=1", "Set-Cookie", "b=2"];
      const terms = { signal: new Cancellation(), gate: undefined, watch: undefined };
      void upgrade.switchTo(taken, upstream, { ...terms, toll: undefined });
    },
    { ":method": "CONNECT", ":protocol": "websocket", ":path": "/", ":scheme": "http" },
  );
  expect(fields["set-cookie"]).toEqual(["a=1", "b=2"]);
  expect(fields).not.toHaveProperty("sec-websocket-accept");
  upstream.destroy();
});

test("a plugin's reply arrives without the fields that HTTP/2, or HTTP, does not have", async () => {
  const fields = await answeredBy((stream) =>
    downstreamOf(stream).reply({
      status: 407,
      headers: {
        connection: "close",
        "Keep-Alive": "1",
        "X-Broken": "a\r\nb",
        "Proxy-Authenticate": "Basic",
        "X-Whole": ["a", "b"],
      },
      body: Buffer.from("no"),
    }),
  );
  expect(fields).toMatchObject({
    ":status": 407,
    "proxy-authenticate": "Basic",
    "x-whole": "a, b",
  });
  expect(fields).not.toHaveProperty("x-broken");
});
