/** HTTP/2 origins through the bridge: streams that they did not process, and limits that they announce. */
import { constants } from "node:http2";
import { afterEach, beforeAll, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { type ServerCertificate, TestAuthority } from "../support/certs.ts";
import { frameType } from "../support/http2-frames.ts";
import { endsRequest, type Script, scriptedHttp2 } from "../support/scripted-http2.ts";
import { within } from "../support/eventually.ts";

const host = "api.allowed.test";

let authority: TestAuthority;
let certificate: ServerCertificate;
const closing: (() => void | Promise<void>)[] = [];

beforeAll(async () => {
  authority = await TestAuthority.create();
  certificate = await authority.server([host]);
});
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
});

/** Makes one call; the status of its response. */
type Call = (body: string) => Promise<number>;

async function bench(script: Script): Promise<Call> {
  const origin = await scriptedHttp2(certificate, script);
  closing.push(() => origin.close());
  const proxy = await BridgeProxy.start({ ports: [origin.port], originCa: authority.caPem });
  closing.push(() => proxy.close());
  const client = await proxy.http2(`${host}:${origin.port}`);
  return (body) =>
    within(
      "a response",
      new Promise((resolve, reject) => {
        const stream = client.request({
          ":method": "POST",
          ":path": "/test.Echo/Unary",
          "content-type": "application/grpc",
          te: "trailers",
        });
        stream.once("response", (fields) => resolve(Number(fields[":status"])));
        stream.once("error", reject);
        stream.resume();
        stream.end(body);
      }),
    );
}

test.each([
  ["refused with REFUSED_STREAM", 0],
  ["above the last stream of a GOAWAY", 1],
])("gRPC calls that were %s arrive on the next connection, bodies included", async (_name, way) => {
  const bodies: string[] = [];
  let refused = 0;
  const call = await bench((connection) => {
    connection.settings();
    return (next) => {
      if (next.type === frameType.data && next.payload.length > 0 && connection.index > 0)
        bodies.push(next.payload.toString());
      if (!endsRequest(next)) return;
      if (connection.index > 0) connection.respond(next.stream);
      else {
        refused += 1;
        if (way === 0) connection.reset(next.stream, constants.NGHTTP2_REFUSED_STREAM);
        else if (refused === 20) connection.goaway(0);
      }
    };
  });
  const sent = Array.from({ length: 20 }, (_, count) => `call ${count}`);
  const statuses = await Promise.all(sent.map((body) => call(body)));
  expect(statuses).toEqual(sent.map(() => 200));
  expect(bodies.sort()).toEqual(sent.sort());
});

test("120 calls to an origin that takes 5 at a time all arrive, from its first connection on", async () => {
  const limit = 5;
  let most = 0;
  const call = await bench((connection) => {
    let open = 0;
    setImmediate(() => connection.settings(limit));
    return (next) => {
      if (!endsRequest(next)) return;
      open += 1;
      most = Math.max(most, open);
      if (open > limit) {
        connection.reset(next.stream, constants.NGHTTP2_REFUSED_STREAM);
        open -= 1;
        return;
      }
      setImmediate(() => {
        open -= 1;
        connection.respond(next.stream);
      });
    };
  });
  const statuses = await Promise.all(Array.from({ length: 120 }, (_, at) => call(`call ${at}`)));
  expect(new Set(statuses)).toEqual(new Set([200]));
  expect(most).toBeLessThanOrEqual(limit);
});
