/** Connections to one destination: what is sent on them, when they are used again, and how they end. */
import { describe, expect, test } from "vitest";
import { eventually } from "../../support/eventually.ts";
import {
  type OriginConnection,
  PushedBody,
  Recorded,
  wireBench,
} from "../../support/wire-client.ts";

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const answering = (connection: OriginConnection): void => void connection.send(ok);
const post = { method: "POST", headers: ["Host", "origin.test"] };

describe("a request", () => {
  test("has Host first, the fields as they came, and leaves in one write", async () => {
    const writes: string[] = [];
    const { ask, connections } = await wireBench((connection) => {
      writes.push(connection.seen);
      void connection.send(ok);
    });
    const headers = ["X-One", "a \xe9", "Host", "origin.test", "x-one", "", "Connection", "x"];
    await ask({ path: "/p?q", headers }).over;
    expect(connections[0]?.seen).toBe(
      "GET /p?q HTTP/1.1\r\nhost: origin.test\r\nconnection: keep-alive\r\nX-One: a \xe9\r\nx-one: \r\n\r\n",
    );
    expect(writes).toHaveLength(1);
  });

  test.each([10, 100_000])("with a body of %i bytes has its length", async (size) => {
    const body = Buffer.alloc(size, "b");
    const { ask, connections } = await wireBench((connection) => {
      if (connection.seen.endsWith("b".repeat(size))) void connection.send(ok);
    });
    await ask({ ...post, body }).over;
    const head = `POST / HTTP/1.1\r\nhost: origin.test\r\nconnection: keep-alive\r\ncontent-length: ${size}\r\n\r\n`;
    expect(connections[0]?.seen).toBe(head + body.toString());
  });

  test.each([
    ["a line in its path", { path: "/ HTTP/1.1\r\nX: y" }],
    ["a space in its path", { path: "/a b" }],
    ["a line in a value", { headers: ["Host", "a", "X", "y\r\nZ: z"] }],
    ["a line in a name", { headers: ["Host", "a", "X: y\r\nZ", "z"] }],
    ["a method that is none", { method: "GET / HTTP/1.1\r\nX:" }],
    ["a line in what it upgrades to", { upgrade: "x\r\nZ: z" }],
    ["a character beyond a byte", { headers: ["Host", "a", "X", "\u0100"] }],
    ["no Host", { headers: [] }],
    ["two Hosts", { headers: ["Host", "a", "host", "b"] }],
    ["two lengths", { headers: ["Host", "a", "Content-Length", "0", "Content-Length", "0"] }],
    ["framing of its own", { headers: ["Host", "a", "Transfer-Encoding", "chunked"] }],
    ["a length that is no number", { headers: ["Host", "a", "Content-Length", "+1"] }],
  ])("with %s is not sent, and its connection serves the next one", async (_name, request) => {
    const { ask, connections } = await wireBench(answering);
    expect((await ask(request).over).error).toMatchObject({ kind: "unsendable" });
    expect((await ask().over).status).toBe(200);
    expect(connections).toHaveLength(1);
    expect(connections[0]?.seen).toMatch(/^GET \/ HTTP\/1\.1\r\n[^]*\r\n\r\n$/);
  });

  test.each([
    ["a body without", null],
    ["another body", Buffer.from("xyz")],
  ])("whose length is not that of %s is not sent", async (_name, body) => {
    const { ask, connections } = await wireBench(answering);
    const headers = ["Host", "a", "Content-Length", "2"];
    const { error } = await ask({ ...post, headers, body }).over;
    expect(error).toMatchObject({ kind: "request-length" });
    expect(connections[0]?.seen ?? "").toBe("");
  });
});

describe("a streamed body", () => {
  test("in chunks, the head together with the first of them", async () => {
    const writes: number[] = [];
    const { ask, connections } = await wireBench((connection) => {
      writes.push(connection.seen.length);
      if (connection.seen.endsWith("0\r\n\r\n")) void connection.send(ok);
    });
    const body = new PushedBody();
    body.onOpen = () => body.give("hello");
    const handler = ask({ ...post, body });
    await eventually(() => writes.length > 0);
    body.give("");
    body.give("x".repeat(20));
    body.sink?.end();
    expect((await handler.over).status).toBe(200);
    const head =
      "POST / HTTP/1.1\r\nhost: origin.test\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n";
    expect(writes[0]).toBe(`${head}5\r\nhello\r\n`.length);
    expect(connections[0]?.seen).toBe(`${head}5\r\nhello\r\n14\r\n${"x".repeat(20)}\r\n0\r\n\r\n`);
  });

  test("of a length that was said", async () => {
    const { ask, connections } = await wireBench((connection) => {
      if (connection.seen.endsWith("ab")) void connection.send(ok);
    });
    const body = new PushedBody();
    body.onOpen = (sink) => {
      body.give("a");
      body.give("b");
      sink.end();
    };
    const headers = ["Host", "origin.test", "Content-Length", "2"];
    expect((await ask({ ...post, headers, body }).over).status).toBe(200);
    expect(connections[0]?.seen).toMatch(/\r\nContent-Length: 2\r\n\r\nab$/);
  });

  test("that does not begin at once does not hold the head", async () => {
    const { ask, connections } = await wireBench(() => undefined);
    ask({ ...post, body: new PushedBody() });
    await eventually(() => connections[0]?.seen.endsWith("transfer-encoding: chunked\r\n\r\n"));
  });

  test.each([
    ["POST", /\r\ncontent-length: 0\r\n\r\n$/],
    ["GET", /keep-alive\r\n\r\n$|close\r\n\r\n$/],
  ])("of nothing: %s", async (method, head) => {
    const { ask, connections } = await wireBench(answering);
    const body = new PushedBody();
    body.onOpen = (sink) => sink.end();
    await ask({ method, body }).over;
    expect(connections[0]?.seen).toMatch(head);
  });

  test.each([
    ["longer", ["abc"]],
    ["shorter", ["a"]],
  ])(
    "that is %s than it said fails, and nothing beyond the length leaves",
    async (_name, chunks) => {
      const { ask, connections } = await wireBench(() => undefined);
      const body = new PushedBody();
      body.onOpen = (sink) => {
        for (const chunk of chunks) body.give(chunk);
        sink.end();
      };
      const headers = ["Host", "origin.test", "Content-Length", "2"];
      expect((await ask({ ...post, headers, body }).over).error).toMatchObject({
        kind: "request-length",
      });
      await eventually(() => connections[0]?.isGone === true || connections.length === 0);
      expect(connections[0]?.seen ?? "").not.toContain("abc");
      expect(body.sink).toBe(undefined);
    },
  );

  test("that breaks off ends the request with its error", async () => {
    const { ask, connections } = await wireBench(() => undefined);
    const body = new PushedBody();
    const handler = ask({ ...post, body });
    await eventually(() => body.sink !== undefined);
    const why = new Error("the client went away");
    body.sink?.fail(why);
    expect((await handler.over).error).toBe(why);
    await eventually(() => connections[0]?.isGone === true);
  });

  test("waits for an origin that takes nothing, and arrives whole", async () => {
    const size = 16_000_000;
    let taken = 0;
    const { ask, connections } = await wireBench((connection) => {
      taken += connection.seen.length;
      connection.seen = "";
      if (taken > size) void connection.send(ok);
    });
    const body = new PushedBody();
    let given = 0;
    const chunk = "x".repeat(64_000);
    const fill = (): void => {
      while (!body.isPaused && given < size) {
        given += chunk.length;
        body.give(chunk);
      }
      if (given >= size && body.sink !== undefined && !body.isPaused) body.sink.end();
    };
    body.onOpen = fill;
    body.onResume = fill;
    const handler = ask({ ...post, body });
    await eventually(() => connections.length > 0);
    expect(given).toBeLessThan(size);
    expect((await handler.over).status).toBe(200);
  });
});

describe("a final response that comes while the body is being sent", () => {
  test("is given, the upload stops, and the connection ends", async () => {
    const { ask, connections, sockets } = await wireBench((connection) => {
      if (/part$|^GET/.test(connection.seen)) void connection.send(ok);
    });
    const body = new PushedBody();
    const headers = ["Host", "origin.test", "Content-Length", "100"];
    body.onOpen = () => body.give("part");
    const { status } = await ask({ ...post, headers, body }).over;
    expect(status).toBe(200);
    expect(body.sink).toBe(undefined);
    await eventually(() => sockets[0]?.destroyed === true);
    expect((await ask().over).status).toBe(200);
    expect(connections).toHaveLength(2);
  });

  test("keeps the connection where the body ends before the response does", async () => {
    const { ask, connections } = await wireBench((connection) => {
      if (connection.seen.endsWith("part")) void connection.send(ok.slice(0, -1));
      if (connection.seen.endsWith("whole")) void connection.send("k");
      if (connection.seen.endsWith("\r\n\r\n") && connection.seen.includes("whole"))
        void connection.send(ok);
    });
    const body = new PushedBody();
    body.onOpen = () => body.give("part");
    const handler = new Recorded();
    handler.onHead = () => {
      body.give("whole");
      body.sink?.end();
    };
    const headers = ["Host", "origin.test", "Content-Length", "9"];
    expect((await ask({ ...post, headers, body }, handler).over).body).toBe("ok");
    expect((await ask().over).status).toBe(200);
    expect(connections).toHaveLength(1);
  });

  test("arrives although the origin then closes on what it did not read", async () => {
    const { ask } = await wireBench((connection) => {
      connection.socket.pause();
      connection.socket.write(ok.replace("\r\n", "\r\nConnection: close\r\n"), () =>
        connection.socket.destroy(),
      );
    });
    for (let count = 0; count < 20; count += 1) {
      const handler = ask({ ...post, body: Buffer.alloc(4_000_000) });
      const { status, body, error } = await handler.over;
      expect({ status, body, error }).toEqual({ status: 200, body: "ok", error: undefined });
    }
  });
});

describe("an idle connection", () => {
  test("the one that was used last is used first", async () => {
    const waiting: OriginConnection[] = [];
    const { ask, connections, pool } = await wireBench((connection) => {
      if (connections.length === 3 && waiting.length < 3) {
        waiting.push(connection);
        if (waiting.length < 3) return;
        for (const one of waiting) void one.send(ok);
      } else if (connections.length < 3) waiting.push(connection);
      else void connection.send(ok);
    });
    const first = [ask(), ask(), ask()];
    const order: number[] = [];
    await Promise.all(first.map((handler, index) => handler.over.then(() => order.push(index))));
    expect(pool.count).toBe(3);
    expect(pool.idle).toBe(3);
    const before = connections.map(({ seen }) => seen.length);
    await ask().over;
    await ask().over;
    const grown = connections.filter(({ seen }, index) => seen.length > (before[index] ?? 0));
    expect(grown).toHaveLength(1);
  });

  test("is let go after its time", async () => {
    const { ask, connections, pool } = await wireBench(answering, { idleTimeoutMs: 40 });
    await ask().over;
    await eventually(() => connections[0]?.isGone === true);
    expect(pool.count).toBe(0);
    await ask().over;
    expect(connections).toHaveLength(2);
  });

  test.each([
    ["is as long as its origin says, less a margin", "timeout=3", 1_000_000, true],
    ["is not kept where nothing is left of that", "timeout=2, max=100", 1_000_000, false],
    ["is kept for no longer than the longest time", "timeout=100000", 0, false],
  ])("%s", async (_name, field, maxIdleTimeoutMs, isKept) => {
    const { ask, pool } = await wireBench(
      (connection) =>
        void connection.send(
          `HTTP/1.1 200 OK\r\nKeep-Alive: ${field}\r\nContent-Length: 0\r\n\r\n`,
        ),
      { idleTimeoutMs: 1_000_000, maxIdleTimeoutMs },
    );
    await ask().over;
    expect(pool.idle).toBe(isKept ? 1 : 0);
    await eventually(() => pool.count === 0);
  });

  test.each([
    ["bytes that nobody asked for", (connection: OriginConnection) => void connection.send(ok)],
    ["the end of the origin", (connection: OriginConnection) => void connection.socket.end()],
    ["a reset", (connection: OriginConnection) => void connection.socket.resetAndDestroy()],
  ])("%s retire it at once", async (_name, act) => {
    const { ask, connections, pool } = await wireBench(answering);
    await ask().over;
    expect(pool.idle).toBe(1);
    const [first] = connections;
    if (first !== undefined) act(first);
    await eventually(() => pool.count === 0);
    expect((await ask().over).body).toBe("ok");
    expect(connections).toHaveLength(2);
  });

  test("what came unasked is not the response to a request that is made before it is read", async () => {
    const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    const { ask, sockets, connections } = await wireBench(answering);
    await ask().over;
    const before = sockets[0]?.bytesRead;
    // A timer runs before the sockets are read: the bytes are in the kernel when the request is made.
    const handler = await new Promise<Recorded>((resolve) => {
      setTimeout(() => {
        void connections[0]?.send(evil);
        resolve(ask());
        expect(sockets[0]?.bytesRead).toBe(before);
      });
    });
    expect((await handler.over).body).toBe("ok");
    expect(connections).toHaveLength(2);
  });

  test("whose origin closes right behind a response is not used for a request of the same turn", async () => {
    const { ask, connections } = await wireBench((connection) => {
      void connection.send(ok);
      connection.socket.end();
    });
    for (let count = 0; count < 20; count += 1) {
      const first = new Recorded();
      const next = new Promise<Recorded>((resolve) => {
        first.onOver = () => resolve(ask());
      });
      ask({}, first);
      expect((await (await next).over).body).toBe("ok");
    }
    expect(connections).toHaveLength(40);
  });

  test.each([
    ["HEAD", "HEAD", null],
    ["GET with a body", "GET", Buffer.from("x")],
    ["DELETE with a body", "DELETE", Buffer.from("x")],
  ])("%s leaves none", async (_name, method, body) => {
    const { ask, connections, pool } = await wireBench((connection) => {
      void connection.send(method === "HEAD" ? ok.slice(0, -2) : ok);
    });
    await ask({ method, body }).over;
    expect(connections[0]?.seen).toContain("connection: close\r\n");
    expect(pool.idle).toBe(0);
    await eventually(() => pool.count === 0);
  });
});

test("a kept connection that died: no byte of a response was seen", async () => {
  let isDead = false;
  const { ask } = await wireBench((connection) => {
    if (isDead) connection.socket.resetAndDestroy();
    else void connection.send(ok);
  });
  await ask().over;
  isDead = true;
  const { events, error } = await ask().over;
  expect(events).toEqual(["start", "error"]);
  expect(error).toMatchObject({ kind: "closed" });
});

describe("an upgrade", () => {
  const switched = "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";

  test("gives the connection away, paused, without listeners, with what came behind", async () => {
    const { ask, connections, pool } = await wireBench((connection) => {
      if (!connection.seen.endsWith("\r\n\r\n")) return;
      void connection.send(`${switched}first`);
    });
    const { upgraded, status, headers, events } = await ask({ upgrade: "x" }).over;
    expect(connections[0]?.seen).toContain("\r\nconnection: upgrade\r\nupgrade: x\r\n");
    expect({ status, headers }).toEqual({
      status: 101,
      headers: ["Connection", "upgrade", "Upgrade", "x"],
    });
    expect(upgraded?.head).toBe("first");
    expect(events.at(-1)).toBe("upgrade");
    expect(pool.count).toBe(0);
    const socket = upgraded?.socket;
    expect(socket?.isPaused()).toBe(true);
    for (const event of ["data", "drain"]) expect(socket?.listenerCount(event)).toBe(0);
    await connections[0]?.send("second");
    let seen = "";
    socket?.on("data", (chunk: Buffer) => (seen += chunk.toString())).resume();
    await eventually(() => seen === "second");
    pool.destroy();
    expect(socket?.destroyed).toBe(false);
    socket?.destroy();
  });

  test("that is refused is an ordinary response; nobody else gets its connection", async () => {
    const { ask, pool } = await wireBench(answering);
    expect((await ask({ upgrade: "x" }).over).status).toBe(200);
    expect(pool.idle).toBe(0);
  });

  test("without the option of Connection is none", async () => {
    const { ask } = await wireBench((connection) => {
      void connection.send("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n");
    });
    expect((await ask({ upgrade: "x" }).over).error).toMatchObject({ name: "MalformedMessage" });
  });
});

describe("abort", () => {
  test("before the request is sent leaves its connection unused, for the next one", async () => {
    const { ask, connections } = await wireBench(answering);
    const handler = new Recorded();
    const why = new Error("enough");
    handler.onStart = (control) => control.abort(why);
    expect((await ask({}, handler).over).error).toBe(why);
    await ask({ path: "/next" }).over;
    expect(connections).toHaveLength(1);
    expect(connections[0]?.seen).toMatch(/^GET \/next /);
  });

  test.each(["onStart", "onHead", "onData"] as const)("in %s is told once", async (when) => {
    const { ask, pool } = await wireBench((connection) => {
      void connection.send(ok.slice(0, -1));
    });
    const handler = new Recorded();
    const why = new Error("enough");
    handler[when] = (control) => {
      control.abort(why);
      control.abort(new Error("again"));
    };
    const { error, events } = await ask({}, handler).over;
    expect(error).toBe(why);
    expect(events.filter((event) => event === "error")).toHaveLength(1);
    expect(events).not.toContain("end");
    await eventually(() => pool.count === pool.idle);
  });

  test("after the end touches nobody else's request", async () => {
    const { ask, connections } = await wireBench((connection) => {
      if (connection.seen.includes("/second")) void connection.send(ok.slice(0, -2));
      else void connection.send(ok);
    });
    const first = await ask().over;
    const second = ask({ path: "/second" });
    await eventually(() => second.status === 200);
    first.control?.pause();
    first.control?.resume();
    first.control?.abort(new Error("late"));
    await connections[0]?.send("ok");
    expect((await second.over).body).toBe("ok");
    expect(first.events.at(-1)).toBe("end");
  });
});

describe("an origin that is late", () => {
  test("with its head", async () => {
    const { ask, connections } = await wireBench(() => undefined, { responseTimeoutMs: 30 });
    expect((await ask().over).error).toMatchObject({ kind: "response-timeout" });
    await eventually(() => connections[0]?.isGone === true);
  });

  test("although its head comes byte by byte", async () => {
    const { ask } = await wireBench(
      (connection) => {
        const timer = setInterval(() => {
          connection.socket.write("H");
        }, 5);
        connection.socket.once("close", () => clearInterval(timer));
        connection.socket.write("HTTP/1.1 200 ");
      },
      { responseTimeoutMs: 60 },
    );
    expect((await ask().over).error).toMatchObject({ kind: "response-timeout" });
  });

  test("with the rest of its body", async () => {
    const { ask } = await wireBench((connection) => void connection.send(ok.slice(0, -1)), {
      streamIdleTimeoutMs: 30,
    });
    expect((await ask().over).error).toMatchObject({ kind: "idle-timeout" });
  });

  test("is not late where its response is not wanted, or the client sends nothing", async () => {
    const limits = { responseTimeoutMs: 30, streamIdleTimeoutMs: 30 };
    const { ask } = await wireBench((connection) => {
      if (connection.seen.startsWith("GET")) void connection.send(ok);
      else if (connection.seen.endsWith("0\r\n\r\n")) void connection.send(ok);
    }, limits);
    const paused = new Recorded();
    paused.onHead = (control) => control.pause();
    ask({}, paused);
    const body = new PushedBody();
    const waiting = ask({ ...post, body });
    // A third request is late meanwhile: the others have had as long.
    await eventually(() => paused.status === 200);
    const silent = ask({ method: "OPTIONS" });
    expect((await silent.over).error).toMatchObject({ kind: "response-timeout" });
    expect(paused.events).not.toContain("error");
    expect(waiting.events).not.toContain("error");
    paused.control?.resume();
    body.sink?.end();
    expect((await paused.over).body).toBe("ok");
    expect((await waiting.over).status).toBe(200);
  });
});

describe("a pool", () => {
  test("that is retired lets its requests finish and keeps nothing", async () => {
    const { ask, pool, connections } = await wireBench((connection) => {
      void connection.send(connection.seen.includes("/slow") ? ok.slice(0, -2) : ok);
    });
    const slow = ask({ path: "/slow" });
    await eventually(() => slow.status === 200);
    await ask().over;
    expect(pool.idle).toBe(1);
    pool.retire();
    expect({ count: pool.count, idle: pool.idle }).toEqual({ count: 1, idle: 0 });
    await connections[0]?.send("ok");
    expect((await slow.over).body).toBe("ok");
    expect(pool.count).toBe(0);
  });

  test("that is destroyed ends its requests, also one that waits for its connection", async () => {
    const { ask, pool } = await wireBench(() => undefined);
    const [sent, waiting] = [ask(), ask()];
    await eventually(() => sent.events.includes("start"));
    pool.destroy();
    const late = ask();
    for (const handler of [sent, waiting, late])
      expect((await handler.over).error).toBeInstanceOf(Error);
    expect(pool.count).toBe(0);
  });

  test("a request whose kept connection ends before it is sent gets another one", async () => {
    const { ask, pool, sockets, connections } = await wireBench(answering);
    await ask().over;
    const next = ask();
    expect(pool.idle).toBe(0);
    sockets[0]?.destroy();
    const { status, events } = await next.over;
    expect(status).toBe(200);
    expect(events.filter((event) => event === "start")).toHaveLength(1);
    expect(connections).toHaveLength(2);
  });
});
