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
    /** The buffer that was filled. */
    fill(text: string) {
      current.set(Buffer.from(text));
      return this.read(text.length).used;
    },
    read(bytes: number | "all") {
      const used = current;
      options.callback(bytes === "all" ? used.length : bytes, used);
      current = next();
      return { used, isReused: current === used, size: current.length };
    },
  };
}

describe("AdaptiveReader", () => {
  test("takes a buffer of its own after two full reads and gives it back after four small ones", () => {
    const node = drive(() => "free");
    const sizes = ["all", "all", "all", 10, 10, 10, 10] as const;
    expect(sizes.map((bytes) => node.read(bytes).size / 1024)).toEqual([
      16, 256, 256, 256, 256, 256, 16,
    ]);
  });

  test("two readers share one buffer while little comes, and what each gave stays as it was", () => {
    const kept: Buffer[] = [];
    const keep: ChunkSink = (chunk) => {
      kept.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length));
      return "kept";
    };
    const [one, other] = [drive(keep), drive(keep)];
    expect(one.fill("first").buffer).toBe(other.fill("second").buffer);
    one.fill("third");
    expect(kept.map(String)).toEqual(["first", "second", "third"]);
  });

  test("reuses a buffer of its own only when nothing points to it any more", () => {
    const outcomes = ["free", "free", "free", "kept", "free"] as const;
    let turn = 0;
    const node = drive(() => outcomes[turn++] ?? "free");
    const reads = outcomes.map(() => node.read("all"));
    // The second read ends with the change to the reader's own.
    expect(reads.map((read) => read.isReused)).toEqual([true, false, true, false, true]);
  });

  test.each(["kept", "wait"] as const)(
    "a buffer with bytes that are %s goes to nobody else",
    (last) => {
      let outcome: "free" | "kept" | "wait" = "free";
      const node = drive(() => outcome);
      node.read("all");
      node.read("all");
      for (let turn = 0; turn < 3; turn += 1) node.read(10);
      outcome = last;
      const { used } = node.read(10);
      const next = drive(() => "free");
      next.read("all");
      next.read("all");
      expect(next.read("all").used).not.toBe(used);
    },
  );

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
