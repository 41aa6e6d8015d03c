/** Event streams: passed on byte for byte and at once, judged frame by frame where a plugin asks for frames. */
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get, RawClient } from "../support/http-client.ts";
import { readChunk } from "../support/http-message.ts";
import { HttpOrigin, type OriginConnection } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type Settings } from "../support/program.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let origin: HttpOrigin;

const head =
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
const chunk = (text: string): string =>
  `${Buffer.byteLength(text, "latin1").toString(16)}\r\n${text}\r\n`;

/** A stream that the test feeds. */
interface Feed {
  readonly connection: OriginConnection;
  send(text: string): Promise<boolean>;
  end(): Promise<boolean>;
}

const feeds = new Map<string, Feed>();

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
});

/** Lets the origin open a stream for this path and wait. */
function streamAt(path: string, opening = head): void {
  origin.on(path, async ({ connection }) => {
    await connection.send(opening);
    feeds.set(path, {
      connection,
      send: (text) => connection.send(chunk(text)),
      end: () => connection.send("0\r\n\r\n"),
    });
  });
}

async function feedOf(path: string): Promise<Feed> {
  return eventually(() => feeds.get(path) ?? false);
}

function both(plugins: unknown[], over: Settings = {}): Promise<ProxyProcess> {
  return ProxyProcess.start(
    settings({
      ...over,
      listener: { reverse_proxy_backend: origin.url },
      pipeline: { inbound: { plugins }, outbound: { plugins } },
    }),
  );
}

async function open(
  proxy: ProxyProcess,
  surface: "forward" | "reverse",
  path: string,
): Promise<RawClient> {
  const client = await own(RawClient.connect(proxy[surface]));
  client.write({ target: surface === "forward" ? `${origin.url}${path}` : path });
  return client;
}

const odd =
  ': a comment\n\nevent: message_start\nid: 7\nretry: 3000\ndata: {"a":1}\n\n' +
  "data:no space\r\ndata: second line\r\n\r\ndata: \xe2\x82\xac\n\nunknown: field\n\ndata: unfinished";

describe.each(["forward", "reverse"] as const)(
  "through the %s proxy, without a frame reader",
  (surface) => {
    let proxy: ProxyProcess;
    beforeAll(async () => {
      proxy = await own(
        both(
          [
            { name: "recorder", config: { file: "records" } },
            { name: "denier", config: { path: `/denied-${surface}`, phase: "response" } },
          ],
          { limits: { stream_idle_timeout: "900ms" } },
        ),
      );
    });

    test("H3: every byte arrives, event, id, retry and comments among them", async () => {
      const path = `/exact-${surface}`;
      streamAt(path);
      const client = await open(proxy, surface, path);
      const feed = await feedOf(path);
      // In pieces that respect no boundary.
      for (let at = 0; at < odd.length; at += 7) await feed.send(odd.slice(at, at + 7));
      await feed.end();
      const answer = await client.response();
      expect(answer.status).toBe(200);
      expect(answer.header("content-type")).toBe("text/event-stream; charset=utf-8");
      expect(answer.body.toString("latin1")).toBe(odd);
    });

    test("H2, H15: the head and each piece arrive before the next is sent", async () => {
      const path = `/at-once-${surface}`;
      streamAt(path);
      const client = await open(proxy, surface, path);
      const feed = await feedOf(path);
      await client.head();
      for (const piece of ["data: 1\n\n", ": ping\n\n", "data: half"]) {
        await feed.send(piece);
        expect((await readChunk(client.reader)).toString()).toBe(piece);
      }
      await feed.end();
      expect(await readChunk(client.reader)).toHaveLength(0);
    });

    test("H4: a denial of the answer's head is a plain error without a byte of the stream", async () => {
      const path = `/denied-${surface}`;
      streamAt(path, `${head}${chunk("data: secret\n\n")}`);
      const client = await open(proxy, surface, path);
      const answer = await client.response();
      expect(answer.status).toBe(403);
      expect(answer.header("content-type")).toMatch(/^application\/json/);
      expect(answer.text).not.toContain("secret");
      const feed = await feedOf(path);
      feed.connection.socket.resume();
      await eventually(() => feed.connection.isClosed);
    });

    test("a stream that falls silent is cut at its limit, visibly", async () => {
      const path = `/idle-${surface}`;
      streamAt(path);
      const client = await open(proxy, surface, path);
      await (await feedOf(path)).send("data: 1\n\n");
      await expect(client.response()).rejects.toThrow(/connection ended before/);
    });

    test("a client that leaves ends the stream at the origin", async () => {
      const path = `/left-${surface}`;
      streamAt(path);
      const client = await open(proxy, surface, path);
      await client.head();
      const feed = await feedOf(path);
      feed.connection.socket.resume();
      client.close();
      await eventually(() => feed.connection.isClosed);
    });

    test("an origin that dies in the middle is a visible cut", async () => {
      const path = `/died-${surface}`;
      streamAt(path);
      const client = await open(proxy, surface, path);
      const feed = await feedOf(path);
      await feed.send("data: 1\n\n");
      feed.connection.reset();
      await expect(client.response()).rejects.toThrow();
    });
  },
);

describe("with frame readers", () => {
  let proxy: ProxyProcess;
  beforeAll(async () => {
    proxy = await own(
      both([
        { name: "frame-reader", id: "outer", config: { file: "frames", refuse: "FORBIDDEN" } },
        { name: "frame-reader", id: "inner", config: { file: "frames" } },
      ]),
    );
  });

  test("H1, L10: frames flow through the readers in reverse order and reach the client unchanged", async () => {
    streamAt("/frames");
    const client = await open(proxy, "forward", "/frames");
    const feed = await feedOf("/frames");
    const sent = "id: 1\nevent: one\ndata: first\n\n: comment\n\ndata: second\ndata: line\n\n";
    await feed.send(sent);
    await feed.end();
    const answer = await client.response();
    expect(answer.text).toBe(sent);
    const frames = (await proxy.records("frames")).filter((line) => line["data"] !== "");
    expect(frames.map(({ instance, event, data }) => [instance, event, data])).toEqual([
      ["inner", "one", "first"],
      ["outer", "one", "first"],
      ["inner", undefined, "second\nline"],
      ["outer", undefined, "second\nline"],
    ]);
  });

  test("H2, L10: each frame is passed on at once, and a refused one ends the stream before it", async () => {
    streamAt("/refused-frame");
    const client = await open(proxy, "reverse", "/refused-frame");
    const feed = await feedOf("/refused-frame");
    await client.head();
    await feed.send("data: fine\n\n");
    expect(await client.reader.until("data: fine\n\n")).toContain("fine");
    await feed.send("data: half FORB");
    await feed.send("IDDEN\n\ndata: later\n\n");
    const rest = (await client.reader.toEnd()).toString();
    expect(rest).not.toMatch(/FORB|later/);
  });

  test("H2: frames before a refused one are delivered, also when they came with it", async () => {
    streamAt("/refused-together");
    const client = await open(proxy, "reverse", "/refused-together");
    const feed = await feedOf("/refused-together");
    await client.head();
    await feed.send("data: one\n\ndata: two\n\ndata: FORBIDDEN\n\ndata: later\n\n");
    const rest = (await client.reader.toEnd()).toString();
    expect(rest).toContain("data: one\n\n");
    expect(rest).toContain("data: two\n\n");
    expect(rest).not.toMatch(/FORB|later/);
  });

  test("H6: an answer that is no stream is one last frame", async () => {
    origin.on(
      "/json",
      () => 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}',
    );
    expect((await get(proxy.forward, `${origin.url}/json`)).text).toBe('{"a":1}');
    const frames = (await proxy.records("frames")).filter((line) => line["data"] === '{"a":1}');
    expect(frames.map(({ instance, last }) => [instance, last])).toEqual([
      ["inner", true],
      ["outer", true],
    ]);
  });
});

describe("with frame readers and much to read", () => {
  const frames = () => own(both([{ name: "frame-reader", config: { file: "frames" } }]));

  test("H13: frames of tens of kilobytes pass whole", async () => {
    const proxy = await frames();
    const frame = `data: ${"x".repeat(30_000)}\n\n`;
    origin.on("/large-frames", () => `${head}${chunk(frame).repeat(10)}0\r\n\r\n`);
    const client = await open(proxy, "forward", "/large-frames");
    expect((await client.response()).text).toBe(frame.repeat(10));
  });

  test("H13: a frame without end is cut, and everybody else is served", async () => {
    const proxy = await frames();
    streamAt("/huge-frame");
    const client = await open(proxy, "forward", "/huge-frame");
    const feed = await feedOf("/huge-frame");
    void (async () => {
      let left = 200;
      while (left > 0 && (await feed.send("x".repeat(0x10000)))) left -= 1;
    })();
    await expect(client.response()).rejects.toThrow(/connection ended before/);
    expect((await proxy.health("/healthz")).status).toBe(200);
  });
});

describe("with a body writer", () => {
  test("H5: the stream is buffered and replaced", async () => {
    const proxy = await own(both([{ name: "response-body-writer", config: { body: "replaced" } }]));
    streamAt("/buffered");
    const client = await open(proxy, "forward", "/buffered");
    const feed = await feedOf("/buffered");
    await feed.send("data: secret\n\n");
    await feed.end();
    const answer = await client.response();
    expect(answer.text).toBe("replaced");
    expect(answer.header("content-length")).toBe("8");
  });
});
