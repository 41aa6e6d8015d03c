import { PassThrough, Readable } from "node:stream";
import {
  brotliCompressSync,
  deflateRawSync,
  deflateSync,
  gzipSync,
  zstdCompressSync,
} from "node:zlib";
import { describe, expect, test } from "vitest";
import { ReadableSource } from "../../../src/http/body-source.ts";
import { BodyBudget, decodeBody, readBounded } from "../../../src/http/body.ts";

function limits(limitBytes: number, budget = new BodyBudget(1000)) {
  return { limitBytes, budget, signal: new AbortController().signal };
}

const chunks = (...texts: string[]) =>
  new ReadableSource(Readable.from(texts.map((text) => Buffer.from(text))));

describe("readBounded", () => {
  test("reads a body of exactly the limit and holds its bytes until they are released", async () => {
    const budget = new BodyBudget(10);
    const outcome = await readBounded(chunks("hello", "world"), limits(10, budget));
    if (outcome.kind !== "body") {
      throw new Error(outcome.kind);
    }
    expect([outcome.bytes.toString(), budget.usedBytes]).toEqual(["helloworld", 10]);
    outcome.release();
    outcome.release();
    expect(budget.usedBytes).toBe(0);
  });

  test("stops at one byte more, and gives what it read", async () => {
    const budget = new BodyBudget(100);
    const stream = new PassThrough();
    stream.write("hello");
    stream.write("world!");
    const outcome = await readBounded(new ReadableSource(stream), limits(10, budget));
    if (outcome.kind !== "too-large") throw new Error(outcome.kind);
    expect(Buffer.concat(outcome.chunks).toString()).toBe("helloworld!");
    expect([budget.usedBytes, stream.destroyed]).toEqual([5, false]);
    outcome.release();
    expect(budget.usedBytes).toBe(0);
  });

  test("stops when the process holds too much already", async () => {
    const budget = new BodyBudget(8);
    const outcome = await readBounded(chunks("hello", "world"), limits(100, budget));
    if (outcome.kind !== "over-budget") throw new Error(outcome.kind);
    expect(Buffer.concat(outcome.chunks).toString()).toBe("helloworld");
    outcome.release();
    expect(budget.usedBytes).toBe(0);
  });

  test("holds as much as it counts, where bytes come one by one", async () => {
    const one = Buffer.from("x");
    const stream = new PassThrough({ objectMode: true, highWaterMark: 30_000 });
    for (let at = 0; at < 20_000; at += 1) stream.write(one);
    const outcome = await readBounded(new ReadableSource(stream), {
      ...limits(15_000, new BodyBudget(20_000)),
    });
    if (outcome.kind !== "too-large") throw new Error(outcome.kind);
    expect(Buffer.concat(outcome.chunks)).toHaveLength(15_001);
    expect(outcome.chunks.length).toBeLessThan(10);
  });

  test("stops when its signal fires, before and after it began", async () => {
    const stream = new PassThrough();
    stream.write("x");
    const controller = new AbortController();
    const budget = new BodyBudget(10);
    const reading = readBounded(new ReadableSource(stream), {
      limitBytes: 10,
      budget,
      signal: controller.signal,
    });
    stream.once("data", () => controller.abort());
    expect(await reading).toEqual({ kind: "aborted" });
    expect(budget.usedBytes).toBe(0);
    const signal = AbortSignal.abort();
    expect(await readBounded(chunks("x"), { ...limits(10), signal })).toEqual({ kind: "aborted" });
  });

  test("says that a stream broke off", async () => {
    const failing = new PassThrough();
    const first = readBounded(new ReadableSource(failing), limits(10));
    failing.destroy(new Error("reset"));
    expect(await first).toMatchObject({ kind: "failed", error: { message: "reset" } });
    const cut = new PassThrough();
    const second = readBounded(new ReadableSource(cut), limits(10));
    cut.destroy();
    expect((await second).kind).toBe("failed");
    expect((await readBounded(new ReadableSource(cut), limits(10))).kind).toBe("failed");
  });

  test("an empty body is a body", async () => {
    expect(await readBounded(chunks(), limits(0))).toMatchObject({ kind: "body" });
  });
});

describe("decodeBody", () => {
  const text = Buffer.from("a".repeat(5000));
  test.each([
    [undefined, text],
    ["identity", text],
    ["gzip", gzipSync(text)],
    ["X-GZIP", gzipSync(text)],
    ["deflate", deflateSync(text)],
    ["deflate", deflateRawSync(text)],
    ["br", brotliCompressSync(text)],
    ["zstd", zstdCompressSync(text)],
    ["gzip, br", brotliCompressSync(gzipSync(text))],
  ])("undoes %s", async (coding, bytes) => {
    expect(await decodeBody(bytes, coding, 5000)).toEqual({ kind: "body", bytes: text });
    expect(await decodeBody(bytes, coding, 4999)).toEqual({ kind: "too-large" });
  });

  test.each(["compress", "gzip, gzip, gzip", "gzip;q=1", "__proto__"])(
    "does not know %s",
    async (coding) => {
      expect(await decodeBody(text, coding, 5000)).toEqual({ kind: "unsupported" });
    },
  );

  test.each(["gzip", "deflate", "br", "zstd"])("says that a %s body is corrupt", async (coding) => {
    expect(await decodeBody(Buffer.from("hello"), coding, 5000)).toEqual({ kind: "corrupt" });
  });

  test.each(["gzip", "deflate", "br", "zstd"])(
    "says that %s data with something after it is corrupt",
    async (coding) => {
      const body = Buffer.from("hello");
      const coded = {
        gzip: gzipSync(body),
        deflate: deflateSync(body),
        br: brotliCompressSync(body),
        zstd: zstdCompressSync(body),
      }[coding];
      const longer = Buffer.concat([coded ?? body, Buffer.from("trailing")]);
      expect(await decodeBody(longer, coding, 100)).toEqual({ kind: "corrupt" });
    },
  );

  test("says that a truncated body is corrupt", async () => {
    expect(await decodeBody(gzipSync(text).subarray(0, -9), "gzip", 9000)).toEqual({
      kind: "corrupt",
    });
  });
});
