import { describe, expect, test } from "vitest";
import { SseReader, writeSseFrame } from "../../../src/http/sse.ts";

function read(text: string, limitBytes = 10_000) {
  const reader = new SseReader({ limitBytes });
  return [...reader.push(Buffer.from(text)), ...reader.end()];
}
const data = (text: string) => read(text).map((frame) => frame.data);

describe("SseReader", () => {
  test.each([
    ["data: a\ndata: b\n\n", ["a\nb"]],
    ["data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]],
    ["data: a\r\rdata: b\r\r", ["a", "b"]],
    ["data:hi\n\n", ["hi"]],
    ["data:  two\n\n", [" two"]],
    ["data\n\n", [""]],
    ["data: only\n", ["only"]],
    ["data: only", ["only"]],
    ["\n\n\ndata: a\n\n\n", ["a"]],
    ["\uFEFFdata: a\n\n", ["a"]],
    ["", []],
  ])("reads the data of %j", (text, expected) => {
    expect(data(text)).toEqual(expected);
  });

  test("keeps event, id, retry and comments", () => {
    const [frame] = read(": note\nevent: e\nid: 7\nretry: 100\nother: x\ndata: d\n\n");
    expect(frame).toMatchObject({ comments: ["note"], event: "e", id: "7", retry: 100, data: "d" });
  });

  test("an empty event name is none", () => {
    expect(read("event:\ndata: d\n\n")[0]).not.toHaveProperty("event");
    expect(read("event: a\nevent\ndata: d\n\n")[0]).not.toHaveProperty("event");
  });

  test.each([
    [": a\u2028\u2028data: x\n\n", ": a  data: x\n\n"],
    ["id: 1\u0085data: x\ndata: y\n\n", "id: 1 data: x\ndata: y\n\n"],
    ["other: a\vdata: x\ndata: y\n\n", "data: y\n\n"],
    ["data: a\u2028b\n\n", "data: a\u2028b\n\n"],
  ])("MCP-17: what other readers take for line ends hides no event: %j", (text, passed) => {
    expect(Buffer.concat(read(text).map((frame) => frame.raw)).toString()).toBe(passed);
  });

  test("a frame of comments has no data", () => {
    expect(read(": ping\n\n")).toMatchObject([{ comments: ["ping"] }]);
    expect(data(": ping\n\n")).toEqual([undefined]);
  });

  test("gives the bytes of each frame for passing on", () => {
    const text = "data: é\r\n\r\n: c\n\ndata: x\r\r";
    expect(Buffer.concat(read(text).map((frame) => frame.raw)).toString()).toBe(text);
  });

  test("hands a frame over as soon as its blank line is there", () => {
    const reader = new SseReader({ limitBytes: 100 });
    expect(reader.push(Buffer.from("data: a\r\n\r")).length).toBe(1);
    const [next] = reader.push(Buffer.from("\ndata: b\n\n"));
    expect([next?.data, next?.raw.toString()]).toEqual(["b", "data: b\n\n"]);
  });

  test("refuses a frame over the limit and carries a long line under it", () => {
    expect(data(`data: ${"x".repeat(8192)}\n\n`)).toEqual(["x".repeat(8192)]);
    expect(() => read(`data: ${"x".repeat(100)}`, 50)).toThrow(/longer than 50 bytes/);
    const reader = new SseReader({ limitBytes: 50 });
    expect(() => {
      for (let sent = 0; sent < 60; sent += 1) {
        reader.push(Buffer.from(sent % 2 === 0 ? ":" : "\n"));
      }
    }).toThrow(/longer than 50 bytes/);
  });
});

describe("writeSseFrame", () => {
  test("writes one data line per line", () => {
    expect(writeSseFrame({ data: "line-a\nline-b" })).toBe("data: line-a\ndata: line-b\n\n");
  });

  test("leaves out an event or id that would break out of its line", () => {
    expect(writeSseFrame({ event: "x\r\ndata: y", id: "1\n", data: "d" })).toBe("data: d\n\n");
  });
});
