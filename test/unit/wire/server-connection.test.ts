/** What a server's connection gives away, and what it says of a response. */
import { expect, onTestFinished, test } from "vitest";
import { type ConnectionEvents, ServerConnection } from "../../../src/wire/server-connection.ts";
import type { ServerExchange } from "../../../src/wire/server-exchange.ts";
import { socketPair } from "../../support/socket-pair.ts";
import { wireLimits } from "../../support/wire-readers.ts";

const limits = {
  ...wireLimits,
  headerTimeoutMs: 0,
  keepAliveTimeoutMs: 0,
  maxRequestsPerConnection: 0,
};

/** A connection, and its first request. */
async function served(events: Partial<ConnectionEvents> = {}) {
  const pair = await socketPair();
  onTestFinished(() => pair.close());
  const exchange = Promise.withResolvers<ServerExchange>();
  const connection = new ServerConnection(
    pair.server,
    {
      onRequest: exchange.resolve,
      onConnect: () => undefined,
      onBroken: () => undefined,
      onDetached: () => undefined,
      onClosed: () => undefined,
      ...events,
    },
    limits,
  );
  pair.server.resume();
  pair.client.write("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
  return { ...pair, connection, exchange: await exchange.promise };
}

test("all that came behind a CONNECT goes with it, also where it waited in pieces for its turn", async () => {
  const given = Promise.withResolvers<Buffer>();
  const { connection, exchange } = await served({
    onConnect: (_head, _socket, rest) => given.resolve(rest),
  });
  const large = "x".repeat(5_000);
  connection.onData(Buffer.from(`CONNECT a.test:1 HTTP/1.1\r\nHost: a.test:1\r\n\r\n${large}`));
  connection.onData(Buffer.from("behind"));
  exchange.response.writeHead(204, []);
  exchange.end();
  expect((await given.promise).toString()).toBe(`${large}behind`);
});

test("a response that its client did not wait for is not whole", async () => {
  const { client, server, exchange } = await served();
  const over = Promise.withResolvers<boolean>();
  exchange.listen(over.resolve);
  client.pause();
  exchange.response.writeHead(200, ["Content-Length", "16000000"]);
  exchange.end(Buffer.alloc(16_000_000));
  expect(server.writableLength).toBeGreaterThan(0);
  client.resetAndDestroy();
  await expect(over.promise).resolves.toBe(false);
});
