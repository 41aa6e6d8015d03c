import {
  array,
  assert,
  boolean,
  constantFrom,
  nat,
  property,
  record,
  string,
  uint8Array,
} from "fast-check";
import { describe, expect, test } from "vitest";
import {
  WebSocketReader,
  type WebSocketFault,
  type WebSocketItem,
} from "../../src/http/web-socket-reader.ts";
import {
  clientFrame,
  closeFrame,
  FrameBoundary,
  opcodes,
} from "../../src/http/web-socket-frame.ts";
import { BodyBudget } from "../../src/http/body.ts";

const maxMessageBytes = 100_000;

/** Everything that a reader finds, and whether it gave back all memory. */
function readAll(chunks: readonly Buffer[]): (WebSocketItem | WebSocketFault)[] {
  const budget = new BodyBudget(maxMessageBytes * 2);
  const reader = new WebSocketReader({ maxMessageBytes, budget });
  const found: (WebSocketItem | WebSocketFault)[] = [];
  for (const chunk of chunks) {
    reader.push(chunk);
    for (let item = reader.next(); item !== undefined; item = reader.next()) {
      found.push(item);
      if (item.kind === "text" || item.kind === "binary") reader.release();
      if (item.kind === "fault") return released(found, reader, budget);
    }
    expect(budget.usedBytes).toBeLessThanOrEqual(maxMessageBytes);
  }
  return released(found, reader, budget);
}

function released<Found>(found: Found, reader: WebSocketReader, budget: BodyBudget): Found {
  reader.release();
  expect(budget.usedBytes).toBe(0);
  return found;
}

/** The bytes cut at places that a network might cut them at. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const sorted = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort(
    (one, other) => one - other,
  );
  return [0, ...sorted].map((from, index) => bytes.subarray(from, sorted[index]));
}

const places = array(nat(), { maxLength: 20 });
const payload = uint8Array({ maxLength: 70_000, size: "max" }).map((bytes) => Buffer.from(bytes));

describe("a WebSocket reader", () => {
  test("finds each message whole, wherever its bytes are cut and its fragments end", () => {
    const message = record({
      kind: constantFrom("binary" as const),
      data: payload,
      fragments: places,
      pings: boolean(),
    });
    assert(
      property(array(message, { maxLength: 4 }), places, (messages, cuts) => {
        const frames = messages.flatMap(({ data, fragments, pings }) =>
          cut(data, fragments).flatMap((part, index, parts) => {
            const frame = clientFrame(index === 0 ? opcodes.binary : opcodes.continuation, part);
            if (index < parts.length - 1) frame[0] = (frame[0] ?? 0) & 0x7f;
            return pings ? [clientFrame(opcodes.ping, Buffer.from("p")), frame] : [frame];
          }),
        );
        const found = readAll(cut(Buffer.concat(frames), cuts));
        const data = found.flatMap((item) =>
          item.kind === "binary" ? [item.data.toString("latin1")] : [],
        );
        expect(data).toEqual(messages.map((one) => one.data.toString("latin1")));
      }),
      { numRuns: 60 },
    );
  });

  test("never throws, never holds more than a message, and says the same of bytes however cut", () => {
    const bytes = uint8Array({ maxLength: 400 }).map((some) => Buffer.from(some));
    assert(
      property(bytes, places, (some, cuts) => {
        const said = (chunks: readonly Buffer[]): unknown => readAll(chunks).slice(0, 50);
        expect(said(cut(some, cuts))).toEqual(said([some]));
      }),
    );
  });

  test("a message of more than 4096 frames is one too many", () => {
    const first = clientFrame(opcodes.text, Buffer.alloc(0));
    const next = clientFrame(opcodes.continuation, Buffer.alloc(0));
    first[0] = 1;
    next[0] = 0;
    const found = readAll([first, ...Array.from({ length: 5_000 }, () => next)]);
    expect(found[0]).toMatchObject({ closeCode: 1009 });
  });

  test.each([
    ["one byte", Buffer.of(3)],
    ["a code that is never sent", Buffer.of(0x03, 0xee)],
    ["a code below all", Buffer.of(0, 1)],
  ])("a Close frame with %s is a fault", (_what, data) => {
    expect(readAll([clientFrame(opcodes.close, data)])[0]).toMatchObject({ closeCode: 1002 });
  });
});

test("the boundary of frames that pass is known wherever they are cut", () => {
  assert(
    property(array(payload, { minLength: 1, maxLength: 4 }), places, (datas, cuts) => {
      const frames = datas.map((data) => clientFrame(opcodes.binary, data));
      const boundary = new FrameBoundary();
      const ends = new Set<number>([0]);
      for (const frame of frames)
        ends.add([...ends].reduce((a, b) => Math.max(a, b)) + frame.length);
      let passed = 0;
      for (const chunk of cut(Buffer.concat(frames), cuts)) {
        passed += boundary.pass(chunk);
        expect(boundary.isBetweenFrames).toBe(ends.has(passed));
      }
    }),
    { numRuns: 60 },
  );
});

test("the reason of a Close frame is cut between characters", () => {
  assert(
    property(string({ unit: "binary", maxLength: 300 }), (reason) => {
      const frame = closeFrame("server", 1008, reason);
      expect(frame.length).toBeLessThanOrEqual(127);
      expect(() =>
        new TextDecoder("utf-8", { fatal: true }).decode(frame.subarray(4)),
      ).not.toThrow();
    }),
  );
});
