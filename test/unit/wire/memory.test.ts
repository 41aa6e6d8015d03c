/** What was read and carried on gives its memory back; what something still refers to does not. */
import { once } from "node:events";
import { describe, expect, test } from "vitest";
import type { BodySink } from "../../../src/http/body-source.ts";
import { ServerConnection } from "../../../src/wire/server-connection.ts";
import { socketPair } from "../../support/socket-pair.ts";
import { PushedBody, Recorded, wireBench } from "../../support/wire-client.ts";
import { wireLimits } from "../../support/wire-readers.ts";

const size = 400_000;
const large = (chunks: readonly Buffer[]): Buffer[] =>
  chunks.filter(({ buffer, length }) => length === 0 || buffer.byteLength >= 16_384);
const emptied = (chunks: readonly Buffer[]): number =>
  chunks.filter(({ length }) => length === 0).length;

/** Answers for each piece whether it has left the process. */
function handlerThat(answers: (piece: number) => boolean | undefined): Recorded {
  let piece = 0;
  return Object.defineProperty(new Recorded(), "isDrained", {
    get: () => {
      piece += 1;
      return answers(piece);
    },
  });
}

async function response(bytes: string, answers: (piece: number) => boolean | undefined) {
  const chunks: Buffer[] = [];
  const bench = await wireBench((connection) => void connection.send(bytes));
  const handler = handlerThat(answers);
  handler.onStart = () => bench.sockets[0]?.on("data", (chunk: Buffer) => chunks.push(chunk));
  const { body, error } = await bench.ask({}, handler).over;
  return { body, error, chunks };
}

const whole = `HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n${"b".repeat(size)}`;
const inChunks = `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${`1000\r\n${"c".repeat(4_096)}\r\n`.repeat(100)}0\r\n\r\n`;

describe("a response", () => {
  test.each([
    ["of a known length", whole, size],
    ["in chunks", inChunks, 409_600],
  ])("%s gives back what has left, its head's part included", async (_what, bytes, length) => {
    const { body, chunks } = await response(bytes, () => true);
    expect(body).toHaveLength(length);
    expect(large(chunks).length).toBeGreaterThan(0);
    expect(emptied(chunks)).toBe(large(chunks).length);
  });

  test("is left alone where its handler does not say so", async () => {
    const { chunks } = await response(whole, () => undefined);
    expect(emptied(chunks)).toBe(0);
  });

  test("keeps the memory in which one piece of several has not left", async () => {
    const { chunks } = await response(inChunks, (piece) => piece !== 1);
    expect(chunks[0]?.length).toBeGreaterThan(0);
  });

  test("stays whole where it is held back", async () => {
    const handler = handlerThat(() => true);
    const bench = await wireBench((connection) => void connection.send(whole));
    handler.onData = (control) => {
      control.pause();
      setImmediate(() => control.resume());
    };
    expect((await bench.ask({}, handler).over).body).toBe("b".repeat(size));
  });
});

/** What arrived of these bytes, read by sinks that answer for each body in turn. */
async function request(bytes: string, answers: readonly (boolean | undefined)[]) {
  const pair = await socketPair();
  const { client, server } = pair;
  const chunks: Buffer[] = [];
  const bodies: string[] = [];
  const over = Promise.withResolvers<void>();
  const connection = new ServerConnection(
    server,
    {
      onRequest: ({ body, response }) => {
        const isDrained = answers[bodies.length];
        const at = bodies.push("") - 1;
        const sink: BodySink = {
          data: (chunk) => {
            bodies[at] += chunk.toString("latin1");
            return true;
          },
          end: () => {
            response.writeHead(204, []);
            response.end();
            connection.responded();
            if (bodies.length === answers.length) over.resolve();
          },
          fail: () => over.reject(new Error("cut")),
          ...(isDrained === undefined ? {} : { isDrained }),
        };
        body?.open(sink);
      },
      onConnect: () => undefined,
      onBroken: () => over.reject(new Error("broken")),
      onDetached: () => undefined,
      onClosed: () => undefined,
    },
    { ...wireLimits, headerTimeoutMs: 0, keepAliveTimeoutMs: 0, maxRequestsPerConnection: 0 },
  );
  server.on("data", (chunk: Buffer) => chunks.push(chunk));
  client.resume();
  client.write(bytes);
  server.resume();
  await over.promise;
  const closed = once(server, "close");
  pair.close();
  await closed;
  return { bodies, chunks };
}

const post = (body: string): string =>
  `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

describe("a request", () => {
  test("gives back what has left, its head's part included", async () => {
    const { bodies, chunks } = await request(post("b".repeat(size)), [true]);
    expect(bodies[0]).toBe("b".repeat(size));
    expect(large(chunks).length).toBeGreaterThan(0);
    expect(emptied(chunks)).toBe(large(chunks).length);
  });

  test.each([[[false]], [[undefined]]])(
    "is left alone where its reader says %j",
    async (answers) => {
      const { bodies, chunks } = await request(post("b".repeat(size)), answers);
      expect([bodies[0]?.length, emptied(chunks)]).toEqual([size, 0]);
    },
  );

  test("is left alone where another one is in the same memory", async () => {
    const both = post("a".repeat(30_000)) + post("b".repeat(20_000));
    const { bodies, chunks } = await request(both, [false, true]);
    expect(bodies).toEqual(["a".repeat(30_000), "b".repeat(20_000)]);
    expect(chunks[0]?.length).toBeGreaterThan(0);
  });
});

test("an upload says whether the kernel has it", async () => {
  const bench = await wireBench((connection) => {
    if (connection.seen.endsWith("0\r\n\r\n"))
      void connection.send("HTTP/1.1 204 No Content\r\n\r\n");
  });
  const body = new PushedBody();
  const seen: unknown[] = [];
  body.onOpen = (sink) => {
    body.give("x".repeat(10));
    seen.push(sink.isDrained);
    bench.sockets[0]?.cork();
    body.give("y".repeat(10));
    seen.push(sink.isDrained);
    bench.sockets[0]?.uncork();
    sink.end();
  };
  await bench.ask({ method: "POST", body }).over;
  expect(seen).toEqual([true, false]);
});
