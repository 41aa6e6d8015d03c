/** The end of a server's connection that keeps its client's last request. */
import { once } from "node:events";
import { expect, test } from "vitest";
import { ServerConnection } from "../../../src/wire/server-connection.ts";
import { eventually } from "../../support/eventually.ts";
import { socketPair } from "../../support/socket-pair.ts";
import { wireLimits } from "../../support/wire-readers.ts";

async function served(onFirstHead?: () => void) {
  const { client, server } = await socketPair();
  let requests = 0;
  const connection = new ServerConnection(
    server,
    {
      onRequest: ({ response }) => {
        requests += 1;
        response.writeHead(204, []);
        if (requests === 1) onFirstHead?.();
        response.end();
        connection.responded();
      },
      onConnect: () => undefined,
      onBroken: () => undefined,
      onDetached: () => undefined,
      onClosed: () => undefined,
    },
    { ...wireLimits, headerTimeoutMs: 0, keepAliveTimeoutMs: 0, maxRequestsPerConnection: 0 },
  );
  server.resume();
  let seen = "";
  client.on("data", (chunk: Buffer) => (seen += chunk.toString("latin1")));
  return { client, connection, seen: () => seen, requests: () => requests };
}

const request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

test("a request that was under way when the server began to drain has its response, which says that it is the last", async () => {
  const { client, connection, seen, requests } = await served();
  client.write(request);
  connection.drain();
  await once(client, "end");
  expect(requests()).toBe(1);
  expect(seen()).toMatch(/^HTTP\/1\.1 204 .*\r\nConnection: close\r\n/s);
});

test("a response whose head had left does not end the connection, as it did not say so", async () => {
  const { client, connection, seen, requests } = await served(() => connection.drain());
  client.write(request);
  await eventually(() => requests() === 1);
  client.write(request);
  await once(client, "end");
  expect(requests()).toBe(2);
  expect(seen().match(/Connection: close/g)).toHaveLength(1);
});

test("where none has come it is closed without a word", async () => {
  const { client, connection, seen } = await served();
  connection.drain();
  connection.closeIdle();
  await once(client, "close");
  expect(seen()).toBe("");
});
