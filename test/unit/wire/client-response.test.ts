/** Responses as our client reads them: in one piece, and cut at every byte. */
import type { Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { ClientFault } from "../../../src/wire/client-fault.ts";
import { MalformedMessage } from "../../../src/wire/malformed.ts";
import { eventually } from "../../support/eventually.ts";
import { Recorded, wireBench } from "../../support/wire-client.ts";

/** Waits until the client has read so much. */
async function read(socket: Socket | undefined, bytes: number): Promise<void> {
  const isRead = (): boolean => (socket?.bytesRead ?? 0) >= bytes || socket?.destroyed === true;
  for (let turn = 0; turn < 10_000 && !isRead(); turn += 1) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

interface Case {
  readonly name: string;
  readonly method?: string;
  readonly bytes: string;
  /** The origin closes its side behind it. */
  readonly ends?: boolean;
  readonly status?: number;
  readonly body?: string;
  readonly interim?: readonly number[];
  readonly trailers?: readonly string[];
  /** Whether the connection carries the next request. */
  readonly kept: boolean;
}

const length2 = "Content-Length: 2\r\n\r\nok";

const cases: readonly Case[] = [
  { name: "a length", bytes: `HTTP/1.1 200 OK\r\n${length2}`, kept: true },
  { name: "no reason phrase", bytes: `HTTP/1.1 200\r\n${length2}`, kept: true },
  {
    name: "a length of nothing",
    bytes: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    body: "",
    kept: true,
  },
  {
    name: "chunks with extensions and trailers",
    bytes:
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\no\r\n1;c="d e"\r\nk\r\n0\r\nX-T: 1\r\nx-t: 2\r\n\r\n',
    trailers: ["X-T", "1", "x-t", "2"],
    kept: true,
  },
  { name: "until the end", bytes: "HTTP/1.1 200 OK\r\nX: 1\r\n\r\nok", ends: true, kept: false },
  {
    name: "the close option",
    bytes: `HTTP/1.1 200 OK\r\nConnection: x, Close\r\n${length2}`,
    kept: false,
  },
  { name: "HTTP/1.0", bytes: `HTTP/1.0 200 OK\r\n${length2}`, kept: false },
  {
    name: "HTTP/1.0, kept",
    bytes: `HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n${length2}`,
    kept: true,
  },
  {
    name: "204",
    bytes: "HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n",
    status: 204,
    body: "",
    kept: true,
  },
  {
    name: "204 with a length, behind which some servers send that",
    bytes: "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n",
    status: 204,
    body: "",
    kept: false,
  },
  {
    name: "304 with chunks",
    bytes: "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
    status: 304,
    body: "",
    kept: false,
  },
  {
    name: "HEAD",
    method: "HEAD",
    bytes: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    body: "",
    kept: false,
  },
  {
    name: "interim responses",
    bytes: `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\n${length2}`,
    interim: [100, 103],
    kept: true,
  },
  {
    name: "bytes behind it",
    bytes: `HTTP/1.1 200 OK\r\n${length2}HTTP/1.1 200 OK\r\n`,
    kept: false,
  },
];

describe.each(cases)("$name", ({ method = "GET", bytes, ends = false, kept, ...expected }) => {
  const { status = 200, body = "ok", interim = [], trailers = [] } = expected;

  test("cut at every byte it is the same, and the connection is kept where that is safe", async () => {
    let answer: (connection: {
      send(text: string): Promise<void>;
      socket: Socket;
    }) => Promise<void>;
    const { ask, connections, sockets } = await wireBench((connection) => void answer(connection));
    for (let cut = 1; cut < bytes.length; cut += 1) {
      answer = async (connection) => {
        const at = connections.findIndex(({ socket }) => socket === connection.socket);
        const before = sockets[at]?.bytesRead ?? 0;
        await connection.send(bytes.slice(0, cut));
        await read(sockets[at], before + cut);
        if (ends) connection.socket.end(bytes.slice(cut));
        else await connection.send(bytes.slice(cut));
      };
      const seen = await ask({ method }).over;
      expect({ cut, ...seen.outcome }).toMatchObject({ cut, status, body, trailers });
      expect(seen.interim).toEqual(interim);
      expect(seen.events.filter((event) => event === "head" || event === "end")).toHaveLength(2);
      // What comes behind a whole response in another packet is met on an idle connection.
      if (!kept) await eventually(() => sockets.at(-1)?.destroyed === true);
    }
    expect(connections).toHaveLength(kept ? 1 : bytes.length - 1);
  });
});

describe.each([
  ["a bare line feed", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"],
  ["another protocol", "SSH-2.0-OpenSSH_9.6\r\n"],
  ["a folded line", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"],
  ["whitespace before a colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok"],
  ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"],
  [
    "a length and chunks",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
  ],
  ["an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"],
  ["chunks of HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
  ["a chunk size that is none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"],
  [
    "a chunk longer than its size",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
  ],
  ["a control character", "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n"],
  ["HTTP/2", "HTTP/2.0 200 OK\r\n\r\n"],
  ["a switch that nobody asked for", "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"],
  ["more bytes than the limit", `HTTP/1.1 200 OK\r\nX: ${"x".repeat(20_000)}\r\n\r\n`],
  ["more fields than the limit", `HTTP/1.1 200 OK\r\n${"X: 1\r\n".repeat(101)}\r\n`],
])("%s", (_name, bytes) => {
  test("is malformed, at once, and ends the connection", async () => {
    const { ask, sockets } = await wireBench((connection) => {
      void connection.send(bytes);
    });
    const { error, events } = await ask().over;
    expect(error).toBeInstanceOf(MalformedMessage);
    expect(events).not.toContain("end");
    await eventually(() => sockets[0]?.destroyed === true);
  });
});

test.each([
  ["nothing", ""],
  ["a part of the head", "HTTP/1.1 200 OK\r\nX: "],
  ["a part of the length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf"],
  [
    "chunks without their end",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
  ],
])("an origin that closes after %s: the response is not whole", async (_name, bytes) => {
  const { ask } = await wireBench(({ socket }) => socket.end(bytes));
  const { error, events } = await ask().over;
  expect(error).toBeInstanceOf(ClientFault);
  expect(error).toMatchObject({ kind: "closed" });
  expect(events).not.toContain("end");
  expect(events.includes("first")).toBe(bytes !== "");
});

test("a body until the end of the connection is not whole where that is reset", async () => {
  const { ask, connections } = await wireBench((connection) => {
    void connection.send("HTTP/1.1 200 OK\r\n\r\nhalf");
  });
  const handler = new Recorded();
  handler.onData = () => connections[0]?.socket.resetAndDestroy();
  const { error, body } = await ask({}, handler).over;
  expect(body).toBe("half");
  expect(error).toMatchObject({ kind: "closed", cause: { code: "ECONNRESET" } });
});

describe("a handler that pauses", () => {
  const body = "0123456789".repeat(50_000);

  test.each([
    ["a length", `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`, false],
    ["until the end", `HTTP/1.1 200 OK\r\n\r\n${body}`, true],
  ])("gets nothing until it goes on, and then everything: %s", async (_name, bytes, ends) => {
    const { ask } = await wireBench((connection) => {
      void connection.send(bytes);
      if (ends) connection.socket.end();
    });
    const handler = new Recorded();
    let isPaused = false;
    let early = 0;
    const pause = (): void => {
      isPaused = true;
      handler.control?.pause();
      setImmediate(() => {
        isPaused = false;
        handler.control?.resume();
      });
    };
    handler.onHead = pause;
    handler.onData = () => {
      if (isPaused) early += 1;
      pause();
    };
    await ask({}, handler).over;
    expect(handler.body).toBe(body);
    expect(handler.events.at(-1)).toBe("end");
    expect(early).toBe(0);
  });

  test("and goes on in the same call is not held", async () => {
    const { ask, connections } = await wireBench((connection) => {
      void connection.send(`HTTP/1.1 200 OK\r\n${length2}`);
    });
    const handler = new Recorded();
    handler.onHead = handler.onData = (control) => {
      control.pause();
      control.resume();
    };
    await ask({}, handler).over;
    expect(handler.body).toBe("ok");
    await ask().over;
    expect(connections).toHaveLength(1);
  });

  test("makes the origin wait", async () => {
    const { ask, connections } = await wireBench((connection) => {
      if (connection.seen === "") return;
      void connection.send("HTTP/1.1 200 OK\r\n\r\n");
      for (let count = 0; count < 40; count += 1) void connection.send(Buffer.alloc(1_000_000));
    });
    const handler = new Recorded();
    handler.onHead = (control) => control.pause();
    ask({}, handler);
    await eventually(() => handler.status === 200);
    const held = (): number => connections[0]?.socket.writableLength ?? 0;
    await eventually(async () => {
      const before = held();
      await new Promise((resolve) => setTimeout(resolve, 50));
      return before > 0 && held() === before;
    });
    expect(handler.body).toBe("");
  });
});

test("what a handler throws is its error, and ends the connection", async () => {
  const { ask, sockets } = await wireBench((connection) => {
    void connection.send(`HTTP/1.1 200 OK\r\n${length2}`);
  });
  for (const when of ["onHead", "onData"] as const) {
    const handler = new Recorded();
    const thrown = new Error(when);
    handler[when] = () => {
      throw thrown;
    };
    expect((await ask({}, handler).over).error).toBe(thrown);
    await eventually(() => sockets.at(-1)?.destroyed === true);
  }
});
