/** Every byte of an HTTP/2 origin's response arrives, however its frames share segments. */
import type { AddressInfo } from "node:net";
import tls from "node:tls";
import { expect, onTestFinished, test } from "vitest";
import { Http2Origin } from "../../../src/upstream/http2-origin.ts";
import { TestAuthority } from "../../support/certs.ts";
import { block, flag, frame, frameType, preface } from "../../support/http2-frames.ts";

const bodyBytes = 777;

/** HEADERS, DATA and trailers in one write, and so in one segment. */
function response(stream: number): Buffer {
  const head = block([
    [":status", "200"],
    ["content-type", "application/grpc"],
  ]);
  return Buffer.concat([
    frame(frameType.headers, flag.endHeaders, stream, head),
    frame(frameType.data, 0, stream, Buffer.alloc(bodyBytes, 1)),
    frame(
      frameType.headers,
      flag.endHeaders | flag.endStream,
      stream,
      block([["grpc-status", "0"]]),
    ),
  ]);
}

/** Calls back with each frame's type, flags and stream as its last byte comes. */
function onFrames(heard: (type: number, flags: number, stream: number) => void) {
  let bytes = Buffer.alloc(0);
  let isGreeted = false;
  return (chunk: Buffer): void => {
    bytes = Buffer.concat([bytes, chunk]);
    if (!isGreeted && bytes.length >= preface.length) {
      isGreeted = true;
      bytes = bytes.subarray(preface.length);
    }
    if (!isGreeted) return;
    while (bytes.length >= 9 && bytes.length >= 9 + bytes.readUIntBE(0, 3)) {
      heard(bytes.readUInt8(3), bytes.readUInt8(4), bytes.readUInt32BE(5));
      bytes = bytes.subarray(9 + bytes.readUIntBE(0, 3));
    }
  };
}

async function origin(): Promise<Http2Origin> {
  const ca = await TestAuthority.create();
  const server = tls.createServer(
    { ...(await ca.server(["origin.test"])), ALPNProtocols: ["h2"] },
    (socket) => {
      socket.on("error", () => undefined);
      socket.write(frame(frameType.settings, 0, 0));
      socket.on(
        "data",
        onFrames((type, flags, stream) => {
          const isWhole = (flags & flag.endStream) !== 0;
          if (type === frameType.settings && (flags & flag.ack) === 0) {
            socket.write(frame(frameType.settings, flag.ack, 0));
          } else if (isWhole && (type === frameType.headers || type === frameType.data)) {
            socket.write(response(stream));
          }
        }),
      );
    },
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const client = new Http2Origin({
    authority: `origin.test:${port}`,
    responseTimeoutMs: 10_000,
    streamIdleTimeoutMs: 10_000,
    idleTimeoutMs: 10_000,
    open: () =>
      new Promise((resolve, reject) => {
        const socket = tls.connect(
          {
            host: "127.0.0.1",
            port,
            servername: "origin.test",
            ca: ca.caPem,
            ALPNProtocols: ["h2"],
          },
          () => resolve(socket),
        );
        socket.once("error", reject);
      }),
  });
  onTestFinished(() => {
    client.destroy();
    server.close();
  });
  return client;
}

/** What one request came to. */
interface Outcome {
  readonly order: string;
  readonly bytes: number;
  readonly status: unknown;
}

function ask(client: Http2Origin, body: Buffer | null): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    let order = "";
    let bytes = 0;
    client.dispatch(
      { method: body === null ? "GET" : "POST", path: "/", headers: [], body, needsHttp2: true },
      {
        onResponseStart: () => {
          order += "h";
        },
        onResponseData: (_control, chunk) => {
          order += "d";
          bytes += chunk.length;
        },
        onResponseEnd: (_control, trailers) =>
          resolve({ order: order.replace(/d+/, "d"), bytes, status: trailers["grpc-status"] }),
        onResponseError: (_control, error) => reject(error),
      },
    );
  });
}

test.each([
  ["a GET", null],
  ["a POST", Buffer.from("x")],
])("%s: head first, then every byte, then trailers; a hundred at once", async (_name, body) => {
  const client = await origin();
  for (let round = 0; round < 20; round += 1) {
    const outcomes = await Promise.all(Array.from({ length: 100 }, () => ask(client, body)));
    const whole = { order: "hd", bytes: bodyBytes, status: "0" };
    expect(outcomes).toEqual(Array.from({ length: 100 }, () => whole));
  }
});
