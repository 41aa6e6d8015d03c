/** Requests to services that the operator's file names. */
import net, { type AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { OperatorClient } from "../../../src/upstream/operator-client.ts";
import type { OriginTrust } from "../../../src/upstream/origin-trust.ts";
import type { OperatorUpstream } from "../../../src/upstream/upstream.ts";

test("an interim response that nobody asked for is passed over", async () => {
  const server = net.createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => {
      const final = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
      socket.end(`HTTP/1.1 100 Continue\r\n\r\n${final}`);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const upstream: OperatorUpstream = {
    connectOperator: () => Promise.resolve(net.connect({ host: "127.0.0.1", port })),
    connectOperatorSocket: () => Promise.reject(new Error("not asked for")),
    absoluteFormOperator: () => undefined,
  };
  // Only https destinations ask for trust.
  const client = new OperatorClient(upstream, {} as OriginTrust);
  const origin = `http://127.0.0.1:${port}`;
  const { status, body } = await client.fetchFor([origin])(`${origin}/keys`);
  expect([status, body.toString()]).toEqual([200, "{}"]);
  await client.close();
  await new Promise((resolve) => server.close(resolve));
});
