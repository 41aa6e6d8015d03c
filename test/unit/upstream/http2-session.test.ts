/** A session to an origin by itself. */
import { once } from "node:events";
import http2 from "node:http2";
import net, { type AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { OriginSession } from "../../../src/upstream/http2-session.ts";

test("it is closed once it is idle, also where the time went by while a stream was open and silent", async () => {
  const server = http2.createServer().listen(0, "127.0.0.1");
  server.on("stream", (stream) => stream.on("error", () => undefined));
  onTestFinished(() => void server.close());
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const socket = net.connect(port, "127.0.0.1");
  const opened = await OriginSession.open(socket, {
    authority: `127.0.0.1:${port}`,
    scheme: "http",
    connectTimeoutMs: 10_000,
    idleTimeoutMs: 50,
    maxHeaderBytes: 65_536,
  });
  const stream = opened.request({ ":path": "/" }, true);
  stream.on("error", () => undefined);
  await once(opened.session, "timeout");
  expect(opened.isOpen).toBe(true);
  stream.close(http2.constants.NGHTTP2_CANCEL);
  await once(opened.session, "close");
});
