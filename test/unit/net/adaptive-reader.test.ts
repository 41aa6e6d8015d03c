import { Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { AdaptiveReader, type ChunkSink } from "../../../src/net/adaptive-reader.ts";

/** Plays node: asks for a buffer, fills it, calls back. */
function drive(sink: ChunkSink) {
  const reader = new AdaptiveReader();
  const options = reader.bind();
  const next = () => (typeof options.buffer === "function" ? options.buffer() : options.buffer);
  reader.attach(new Socket(), sink);
  let current = next();
  return {
    read(bytes: number | "all") {
      const used = current;
      options.callback(bytes === "all" ? used.length : bytes, used);
      current = next();
      return { used, isReused: current === used, size: current.length };
    },
  };
}

describe("AdaptiveReader", () => {
  test("grows after two full reads and gives the memory back after four small ones", () => {
    const node = drive(() => "free");
    const sizes = ["all", "all", "all", 10, 10, 10, 10] as const;
    expect(sizes.map((bytes) => node.read(bytes).size / 1024)).toEqual([
      16, 256, 256, 256, 256, 256, 16,
    ]);
  });

  test("reuses its buffer only when nothing points to it any more", () => {
    const outcomes = ["free", "kept", "free"] as const;
    let turn = 0;
    const node = drive(() => outcomes[turn++] ?? "free");
    expect([node.read(10), node.read(10), node.read(10)].map((read) => read.isReused)).toEqual([
      true,
      false,
      true,
    ]);
  });

  test("keeps what comes before anyone listens, and stops reading", () => {
    const reader = new AdaptiveReader();
    const options = reader.bind();
    const bytes = typeof options.buffer === "function" ? options.buffer() : options.buffer;
    bytes.set(Buffer.from("hello"));
    expect(options.callback(5, bytes)).toBe(false);
    bytes.fill(0);
    const heard: string[] = [];
    reader.attach(new Socket(), (chunk) => {
      heard.push(Buffer.from(chunk).toString());
      return "free";
    });
    expect(heard).toEqual(["hello"]);
  });
});
