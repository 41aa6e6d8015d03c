import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import net from "node:net";
import { buffer } from "node:stream/consumers";
import { afterEach, describe, expect, test } from "vitest";
import { adaptiveReader } from "../../../src/net/adaptive-reader.ts";
import { BodyBudget } from "../../../src/http/body.ts";
import { Backlogs } from "../../../src/net/backlogs.ts";
import { splice, type SpliceOptions, type SpliceResult } from "../../../src/net/splice.ts";
import { StallWatch } from "../../../src/net/stall-watch.ts";

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) {
    cleanup();
  }
});

async function listen(onSocket: (socket: net.Socket) => void): Promise<number> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    onSocket(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => {
    server.close();
    for (const socket of sockets) {
      socket.destroy();
    }
  });
  const address = server.address();
  return typeof address === "object" && address !== null ? address.port : 0;
}

interface Tunnel {
  readonly client: net.Socket;
  readonly result: Promise<SpliceResult>;
}

const backlogs = new Backlogs(new BodyBudget(Number.MAX_SAFE_INTEGER), () => undefined);

/** A client connected through a splice to an origin that does what `origin` says. */
async function tunnel(
  origin: (socket: net.Socket) => void,
  options: Partial<SpliceOptions> & {
    readonly withReader?: boolean;
    readonly onClient?: (socket: net.Socket) => void;
  } = {},
): Promise<Tunnel> {
  const originPort = await listen(origin);
  const ended = Promise.withResolvers<SpliceResult>();
  const stalls = new StallWatch(5);
  cleanups.push(() => stalls.close());
  const proxyPort = await listen((client) => {
    const reader = options.withReader === false ? undefined : adaptiveReader();
    const upstream = net.connect({
      port: originPort,
      host: "127.0.0.1",
      allowHalfOpen: true,
      ...(reader !== undefined && { onread: reader.bind() }),
    });
    upstream.on("error", () => {});
    upstream.once("connect", () => {
      const signal = options.signal ?? new AbortController().signal;
      // Paused, so that a listener of a test takes nothing before the splice does.
      client.pause();
      options.onClient?.(client);
      const given = { idleTimeoutMs: 0, stalls, backlogs, signal, ...options };
      ended.resolve(splice(client, upstream, reader === undefined ? given : { ...given, reader }));
    });
  });
  const client = net.connect({ port: proxyPort, host: "127.0.0.1", allowHalfOpen: true });
  client.on("error", () => {});
  cleanups.push(() => client.destroy());
  return { client, result: ended.promise };
}

const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

describe.each([true, false])("splice, with an adaptive reader: %s", (withReader) => {
  test("keeps half-closes both ways and counts the bytes", async () => {
    const { client, result } = await tunnel(
      (socket) => {
        // Answers only after it has seen the end of the question.
        void buffer(socket).then((asked) => socket.end(`${asked.toString()} answered`));
      },
      { withReader, head: Buffer.from("early ") },
    );
    client.end("question");
    expect((await buffer(client)).toString()).toBe("early question answered");
    expect(await result).toEqual({ bytesUp: 14, bytesDown: 23, reason: "closed" });
  });

  test("the client may go on after the origin has ended", async () => {
    const heard = Promise.withResolvers<string>();
    const { client, result } = await tunnel(
      (socket) => {
        socket.end("bye");
        void buffer(socket).then((rest) => heard.resolve(rest.toString()));
      },
      { withReader },
    );
    expect((await buffer(client)).toString()).toBe("bye");
    client.end("and more");
    expect(await heard.promise).toBe("and more");
    expect((await result).reason).toBe("closed");
  });

  test("carries many megabytes unchanged to a reader that stops and starts", async () => {
    const sent = randomBytes(24 * 1024 * 1024);
    const { client } = await tunnel((socket) => socket.end(sent), { withReader });
    const hash = createHash("sha256");
    let reads = 0;
    client.on("data", (chunk: Buffer) => {
      hash.update(chunk);
      reads += 1;
      if (reads % 3 === 0) {
        client.pause();
        setImmediate(() => client.resume());
      }
    });
    await once(client, "end");
    client.end();
    expect(hash.digest("hex")).toBe(digest(sent));
  });

  test("carries many megabytes up unchanged", async () => {
    const sent = randomBytes(8 * 1024 * 1024);
    const { client } = await tunnel(
      (socket) => void buffer(socket).then((got) => socket.end(digest(got))),
      { withReader },
    );
    client.end(sent);
    expect((await buffer(client)).toString()).toBe(digest(sent));
  });

  test("gives the memory back of what went up, and only when it is out of the process", async () => {
    const seen: Buffer[] = [];
    const sent = randomBytes(8 * 1024 * 1024);
    const { client } = await tunnel(
      (socket) => {
        const hash = createHash("sha256");
        socket.on("data", (chunk: Buffer) => {
          hash.update(chunk);
          // One that stops and starts: some of what is written has to wait.
          socket.pause();
          setImmediate(() => socket.resume());
        });
        socket.on("end", () => socket.end(hash.digest("hex")));
      },
      { withReader, onClient: (socket) => socket.on("data", (chunk: Buffer) => seen.push(chunk)) },
    );
    client.end(sent);
    expect((await buffer(client)).toString()).toBe(digest(sent));
    expect(seen.length).toBeGreaterThan(0);
    expect(seen.filter(({ length }) => length === 0).length).toBeGreaterThan(0);
  });

  test("does not read further from an origin whose client does not read", async () => {
    let taken = 0;
    const full = Promise.withResolvers<void>();
    const chunk = Buffer.alloc(1024 * 1024);
    const { client, result } = await tunnel(
      (socket) => {
        const write = (error?: Error | null): void => {
          if (error !== undefined && error !== null) {
            return;
          }
          taken += chunk.length;
          socket.write(chunk, write);
        };
        write();
        setTimeout(() => full.resolve(), 300);
      },
      { withReader, idleTimeoutMs: 400 },
    );
    client.pause();
    await full.promise;
    // Kernel buffers of four socket ends, not the whole process.
    expect(taken).toBeLessThan(64 * 1024 * 1024);
    expect((await result).reason).toBe("idle");
  });

  test("a reset of the origin reaches the client as a reset, not as an end", async () => {
    const { client, result } = await tunnel(
      (socket) => {
        socket.write("half an ans");
        socket.once("data", () => socket.resetAndDestroy());
      },
      { withReader },
    );
    const failed = once(client, "error");
    await once(client, "data");
    client.write("go");
    const [error] = await failed;
    expect(error).toMatchObject({ code: "ECONNRESET" });
    const ended = await result;
    expect([ended.reason, ended.error instanceof Error]).toEqual(["error", true]);
  });

  test("is cut when nothing moves, and not while something does", async () => {
    const { client, result } = await tunnel((socket) => socket.write("hello"), {
      withReader,
      idleTimeoutMs: 30,
    });
    client.resume();
    expect(await result).toEqual({ bytesUp: 0, bytesDown: 5, reason: "idle" });
  });

  test("is cut by its signal, before and after it began", async () => {
    const controller = new AbortController();
    const { client, result } = await tunnel((socket) => socket.write("x"), {
      withReader,
      signal: controller.signal,
    });
    await once(client, "data");
    controller.abort();
    expect((await result).reason).toBe("aborted");
    const late = await tunnel(() => {}, { withReader, signal: AbortSignal.abort() });
    expect((await late.result).reason).toBe("aborted");
  });
});

test("a server that speaks before the splice begins is heard", async () => {
  const originPort = await listen((socket) => socket.end("SSH-2.0-x\r\n"));
  const reader = adaptiveReader();
  const upstream = net.connect({
    port: originPort,
    host: "127.0.0.1",
    allowHalfOpen: true,
    onread: reader.bind(),
  });
  await once(upstream, "connect");
  const started = Promise.withResolvers<void>();
  const proxyPort = await listen((client) => {
    const stalls = new StallWatch(1_000);
    cleanups.push(() => stalls.close());
    const { signal } = new AbortController();
    void splice(client, upstream, { idleTimeoutMs: 0, stalls, backlogs, signal, reader });
    started.resolve();
  });
  const client = net.connect({ port: proxyPort, host: "127.0.0.1" });
  cleanups.push(() => client.destroy());
  await started.promise;
  expect((await buffer(client)).toString()).toBe("SSH-2.0-x\r\n");
});

test("a client that is gone already ends the tunnel", async () => {
  const upstream = new net.Socket();
  const client = new net.Socket();
  client.destroy();
  const stalls = new StallWatch(1_000);
  cleanups.push(() => stalls.close());
  const { signal } = new AbortController();
  const result = await splice(client, upstream, {
    idleTimeoutMs: 1000,
    stalls,
    backlogs,
    signal,
  });
  expect([result.reason, upstream.destroyed]).toEqual(["closed", true]);
});
