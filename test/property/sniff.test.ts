import * as fc from "fast-check";
import { expect, test } from "vitest";
import { parseClientHello } from "../../src/net/client-hello.ts";
import { classify, parseHttpHead } from "../../src/net/sniff.ts";
import { clientHello, records } from "../support/client-hello.ts";

const timeBox = { interruptAfterTimeLimit: 1_500, numRuns: 2_000 };
const latin1 = (max: number) =>
  fc.uint8Array({ maxLength: max }).map((bytes) => Buffer.from(bytes).toString("latin1"));
const hello = fc
  .record({
    sni: fc.option(latin1(300), { nil: undefined }),
    alpn: fc.option(
      fc.array(
        latin1(20).filter((name) => name !== ""),
        { maxLength: 4 },
      ),
      {
        nil: undefined,
      },
    ),
    size: fc.integer({ min: 1, max: 600 }),
  })
  .map(({ sni, alpn, size }) => ({
    sni,
    alpn,
    bytes: records(
      clientHello({
        ...(sni === undefined ? {} : { sni }),
        ...(alpn === undefined ? {} : { alpn }),
      }),
      size,
    ),
  }));

test("any bytes get an answer, and never an exception", () => {
  const tlsLike = fc.uint8Array({ maxLength: 400 }).map((tail) => Buffer.of(22, 3, 1, ...tail));
  const anyBytes = fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes));
  fc.assert(
    fc.property(fc.oneof(anyBytes, tlsLike), (bytes) => {
      expect(["hello", "need-more", "malformed"]).toContain(parseClientHello(bytes).kind);
      expect(["head", "need-more", "not-http"]).toContain(parseHttpHead(bytes).kind);
      classify(bytes, 16_384);
    }),
    timeBox,
  );
});

test("a damaged hello gets an answer, and never an exception", () => {
  fc.assert(
    fc.property(hello, fc.nat(), fc.nat(255), ({ bytes }, at, value) => {
      const damaged = Buffer.from(bytes);
      damaged[at % damaged.length] = value;
      parseClientHello(damaged);
    }),
    timeBox,
  );
});

test("a hello says what went in, however it is cut into records", () => {
  fc.assert(
    fc.property(hello, ({ sni, alpn, bytes }) => {
      expect(parseClientHello(bytes)).toMatchObject({
        kind: "hello",
        hello: { sni, alpn: alpn ?? [] },
      });
    }),
    timeBox,
  );
});

test("every proper prefix of a hello needs more, and bytes after it change nothing", () => {
  fc.assert(
    fc.property(hello, fc.nat(), fc.uint8Array({ maxLength: 30 }), ({ bytes }, cut, tail) => {
      expect(parseClientHello(bytes.subarray(0, cut % bytes.length)).kind).toBe("need-more");
      expect(parseClientHello(Buffer.concat([bytes, tail]))).toEqual(parseClientHello(bytes));
    }),
    timeBox,
  );
});

test("what is decided about a prefix stays decided", () => {
  const start = fc.constantFrom("", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01\0", "EHLO ");
  fc.assert(
    fc.property(start, latin1(60), latin1(60), (head, middle, tail) => {
      const prefix = Buffer.from(head + middle, "latin1");
      const whole = Buffer.from(head + middle + tail, "latin1");
      const early = classify(prefix, 16_384);
      if (early !== undefined) expect(classify(whole, 16_384)?.kind).toBe(early.kind);
    }),
    timeBox,
  );
});
