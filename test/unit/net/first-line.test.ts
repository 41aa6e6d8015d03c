import { array, assert, nat, property } from "fast-check";
import { describe, expect, test } from "vitest";
import { FirstLine } from "../../../src/net/first-line.ts";

function read(...pieces: readonly string[]): string | undefined {
  const line = new FirstLine();
  let found: string | undefined;
  for (const piece of pieces) found ??= line.read(Buffer.from(piece, "latin1"));
  return found;
}

describe("a first line", () => {
  test.each([
    "GET / HTTP/1.1\r\n",
    "\r\n\r\nGET / HTTP/1.1\r\n",
    "get / HTTP/1.1\n",
    "ANY\t/ http/1.0\r\n",
    "GET /old\r\n",
  ])("%j is a request, in whatever pieces", (text) => {
    assert(
      property(array(nat(text.length)), (cuts) => {
        const at = [0, ...cuts.toSorted((one, other) => one - other), text.length];
        const pieces = at.slice(1).map((end, index) => text.slice(at[index], end));
        expect(read(...pieces)).toBe("request");
      }),
    );
  });

  test.each(["EHLO me\r\n", "GET key\r\n", "\0\0\0\x17", "AMQP\0\0\x09\x01", "get /key\r\n"])(
    "%j is none",
    (text) => {
      expect(read(text)).toBe("other");
    },
  );

  test.each(["", "\r\n", "ge", "ping"])("%j may become one", (text) => {
    expect(read(text)).toBeUndefined();
  });

  test("of any length costs little, and is known by its end", () => {
    const line = new FirstLine();
    const part = Buffer.alloc(65_536, "a");
    for (let count = 0; count < 100; count += 1) expect(line.read(part)).toBeUndefined();
    expect(line.read(Buffer.from(" HTT"))).toBeUndefined();
    expect(line.read(Buffer.from("P/1.1\r\n"))).toBe("request");
  });
});
