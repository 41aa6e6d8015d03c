import * as fc from "fast-check";
import { expect, test } from "vitest";
import { clientFrame, FrameBoundary, MessageCounts } from "../../../src/http/web-socket-frame.ts";

/** A frame that is not the last one of its message. */
function fragment(opcode: number, bytes: number): Buffer {
  const frame = clientFrame(opcode, Buffer.alloc(bytes));
  frame[0] = opcode;
  return frame;
}

const messages = fc.array(
  fc.record({
    parts: fc.integer({ min: 1, max: 4 }),
    bytes: fc.constantFrom(0, 1, 125, 126, 70_000),
  }),
  { maxLength: 5 },
);

test("messages are counted however their bytes are cut, with control frames between fragments", () => {
  fc.assert(
    fc.property(messages, fc.integer({ min: 1, max: 4_096 }), (sent, step) => {
      const frames = sent.flatMap(({ parts, bytes }) => [
        ...Array.from({ length: parts - 1 }, (_, at) => fragment(at === 0 ? 1 : 0, bytes)),
        clientFrame(0x9, Buffer.from("ping")),
        clientFrame(parts === 1 ? 1 : 0, Buffer.alloc(bytes)),
      ]);
      const wire = Buffer.concat(frames);
      const counts = new MessageCounts();
      const boundary = new FrameBoundary();
      for (let at = 0; at < wire.length; at += step) {
        counts.up(wire.subarray(at, at + step));
        boundary.pass(wire.subarray(at, at + step));
      }
      expect([counts.received, counts.sent]).toEqual([sent.length, 0]);
      expect(boundary.isBetweenFrames).toBe(true);
    }),
    { numRuns: 50 },
  );
});
