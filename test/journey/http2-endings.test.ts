/**
 * Nothing overtakes a response on HTTP/2: clients lose it to a GOAWAY that comes before it (httpx, java.net.http), or to a
 * reset while they are still sending (these, and Go where END_STREAM has not come either).
 */
import { beforeAll, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { RawClient } from "../support/http-client.ts";
import {
  block,
  flag,
  type Frame,
  frame,
  frameType,
  get,
  preface,
  readFrame,
  request,
} from "../support/http2-frames.ts";
import { owner } from "../support/owner.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
const allowed = "api.allowed.test";
const refused = "evil.test";

let origin: TlsOrigin;
let proxy: BridgeProxy;

beforeAll(async () => {
  const authority = await TestAuthority.create();
  origin = await own(TlsOrigin.start(await authority.server([allowed])));
  origin.on("/early", (_request, response) => {
    response.end("early");
  });
  proxy = await own(
    BridgeProxy.start({
      ports: [origin.port],
      originCa: authority.caPem,
      plugins: [
        { name: "egress-policy", config: { allow: [allowed] } },
        { name: "deny-paths", config: { prefix: "/denied" } },
      ],
      limits: { max_requests_per_connection: 3 },
    }),
  );
});

/** A connection whose frames are the test's. */
async function http2(host: string) {
  const socket = await proxy.tls(origin.at(host), { ALPNProtocols: ["h2"] });
  await own({ close: () => void socket.destroy() });
  const wire = new RawClient(socket);
  wire.send(preface).send(frame(frameType.settings, 0, 0));
  const seen: Frame[] = [];
  return {
    wire,
    seen,
    /** Frames up to the first of this kind. */
    until: async (is: (frame: Frame) => boolean): Promise<Frame> => {
      for (;;) {
        const next = await readFrame(wire);
        seen.push(next);
        if (is(next)) return next;
      }
    },
    hasSeen: (type: number): boolean => seen.some((one) => one.type === type),
  };
}

const endsStream =
  (stream: number) =>
  ({ type, flags, stream: of }: Frame): boolean =>
    of === stream &&
    (type === frameType.data || type === frameType.headers) &&
    (flags & flag.endStream) !== 0;

/** The head of an upload, and some of it. */
function upload(path: string): Buffer {
  const fields = get(origin.at(allowed), path);
  fields[0] = [":method", "POST"];
  return Buffer.concat([
    frame(frameType.headers, flag.endHeaders, 1, block(fields)),
    frame(frameType.data, 0, 1, Buffer.alloc(1_000)),
  ]);
}

test("the response of a refused connection comes before its GOAWAY", async () => {
  const { wire, until, seen, hasSeen } = await http2(refused);
  wire.send(request(1, get(origin.at(refused))));
  await until(endsStream(1));
  expect(hasSeen(frameType.goaway)).toBe(false);
  expect(Buffer.concat(seen.map(({ payload }) => payload)).toString()).toContain("allow list");
  await until(({ type }) => type === frameType.goaway);
});

test("the last request of a connection is answered before GOAWAY", async () => {
  const { wire, until, hasSeen } = await http2(allowed);
  for (const stream of [1, 3, 5]) {
    expect(hasSeen(frameType.goaway)).toBe(false);
    wire.send(request(stream, get(origin.at(allowed))));
    await until(endsStream(stream));
  }
  expect(hasSeen(frameType.goaway)).toBe(false);
  await until(({ type }) => type === frameType.goaway);
});

test("a request beyond the last, while that is open, is answered with a GOAWAY", async () => {
  const held = Promise.withResolvers<void>();
  origin.on("/held", async (_request, response) => {
    await held.promise;
    response.end("held");
  });
  const { wire, until } = await http2(allowed);
  for (const stream of [1, 3]) wire.send(request(stream, get(origin.at(allowed))));
  await until(endsStream(1));
  wire.send(request(5, get(origin.at(allowed), "/held")));
  wire.send(request(7, get(origin.at(allowed))));
  await until(({ type }) => type === frameType.goaway);
  held.resolve();
  await until(endsStream(5));
});

test.each(["/denied/upload", "/early"])(
  "an upload that is answered early may end in peace: %s",
  async (path) => {
    const { wire, until, hasSeen } = await http2(allowed);
    wire.send(upload(path));
    await until(endsStream(1));
    wire.send(frame(frameType.data, flag.endStream, 1, Buffer.alloc(1_000)));
    wire.send(frame(frameType.ping, 0, 0, Buffer.from("all read")));
    await until(({ payload }) => payload.toString() === "all read");
    expect(hasSeen(frameType.rstStream)).toBe(false);
  },
);

test("an upload without an end is told to stop, behind its response", async () => {
  const { wire, until, hasSeen } = await http2(allowed);
  wire.send(upload("/denied/upload"));
  await until(endsStream(1));
  expect(hasSeen(frameType.rstStream)).toBe(false);
  const reset = await until(({ type }) => type === frameType.rstStream);
  expect(reset.payload.readUInt32BE()).toBe(0);
});
