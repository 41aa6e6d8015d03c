/** Files that grow, are set aside, and may fail without anybody noticing but the operator. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { LineFile, type LineFileOptions } from "../../../src/session/line-file.ts";
import { eventually } from "../../support/eventually.ts";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "authbridge-lines-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function lineFile(options: Partial<LineFileOptions> = {}) {
  const states: unknown[] = [];
  const counts = { written: 0, lost: 0 };
  const path = options.path ?? join(directory, "sub", "log.jsonl");
  const file = new LineFile({
    path,
    maxBytes: 100_000,
    maxFiles: 3,
    retryMs: 5,
    onState: (error) => states.push(error),
    onLines: (result, count) => {
      counts[result] += count;
    },
    ...options,
  });
  return { file, path, states, counts };
}

test("lines are written in order, for the owner's eyes only, and appended after a restart", async () => {
  const first = lineFile();
  for (const line of ["a", "b"]) first.file.write(line);
  await first.file.close();
  const second = lineFile();
  second.file.write("c");
  await second.file.close();
  expect(readFileSync(first.path, "utf8")).toBe("a\nb\nc\n");
  expect(statSync(first.path).mode & 0o777).toBe(0o600);
  expect(second.counts).toEqual({ written: 1, lost: 0 });
});

test("a file that cannot be written is told of before there is a line, and so is its end", async () => {
  const blocker = join(directory, "blocker");
  writeFileSync(blocker, "");
  const { file, path, states } = lineFile({ path: join(blocker, "log.jsonl") });
  file.begin();
  await eventually(() => expect(states).toMatchObject([{ code: "ENOTDIR" }]));
  rmSync(blocker);
  await eventually(() => expect(states).toHaveLength(2));
  expect([states[1], file.failing, existsSync(path)]).toEqual([undefined, false, true]);
  await file.close();
});

test("lines that come faster than they are written make no file longer than it may be", async () => {
  const { file, path, counts } = lineFile({ maxBytes: 100, maxFiles: 20 });
  const lines = Array.from({ length: 60 }, (_, index) => `${index}`.padStart(14, "ä"));
  for (const line of lines) file.write(line);
  await file.close();
  const parts = readdirSync(join(path, "..")).map((name) => join(path, "..", name));
  for (const part of parts) expect(statSync(part).size).toBeLessThanOrEqual(100);
  const text = parts.map((part) => readFileSync(part, "utf8")).join("");
  expect(text.trim().split("\n").toSorted()).toEqual(lines.toSorted());
  expect(counts).toEqual({ written: 60, lost: 0 });
});

test("a torn last line does not swallow the first new one", async () => {
  const path = join(directory, "torn");
  writeFileSync(path, "whole\nto");
  const { file } = lineFile({ path });
  file.write("new");
  await file.close();
  expect(readFileSync(path, "utf8")).toBe("whole\nto\nnew\n");
});

test("a file that is long enough is set aside, and the oldest goes", async () => {
  const { file, path, counts } = lineFile({ maxBytes: 20, maxFiles: 3 });
  for (let index = 0; index < 9; index += 1) {
    file.write(`line-${index}`);
    await eventually(() => counts.written === index + 1);
  }
  await file.close();
  expect([path, `${path}.1`, `${path}.2`].map((one) => readFileSync(one, "utf8"))).toEqual([
    "line-8\n",
    "line-6\nline-7\n",
    "line-4\nline-5\n",
  ]);
  expect(existsSync(`${path}.3`)).toBe(false);
});

test.each([1, 2, 3])("where %i are kept now, what more of them was kept goes", async (maxFiles) => {
  const path = join(directory, "log");
  for (const end of ["", ".1", ".2", ".3", ".4"]) writeFileSync(`${path}${end}`, `old${end}\n`);
  const { file } = lineFile({ path, maxBytes: 5, maxFiles });
  file.write("new");
  await file.close();
  const kept = readdirSync(directory)
    .toSorted()
    .map((name) => readFileSync(join(directory, name), "utf8"));
  expect(kept).toEqual(["new\n", "old\n", "old.1\n"].slice(0, maxFiles));
});

test("a full disk is told once, loses what finds no room, and ends nothing", async () => {
  const { file, states, counts } = lineFile({ path: "/dev/full", maxPending: 100 });
  for (let index = 0; index < 50; index += 1) file.write("0123456789");
  await eventually(() => states.length === 1);
  expect(states[0]).toMatchObject({ code: "ENOSPC" });
  expect(file.failing).toBe(true);
  expect(file.write("0123456789")).toBe(false);
  await file.close(50);
  expect(counts).toEqual({ written: 0, lost: 51 });
  expect(states).toHaveLength(1);
});

test("a path that works again gets what waited, in order", async () => {
  const path = join(directory, "taken", "log");
  writeFileSync(join(directory, "taken"), "a file where the directory should be");
  const { file, states } = lineFile({ path });
  file.write("a");
  await eventually(() => states.length === 1);
  file.write("b");
  rmSync(join(directory, "taken"));
  mkdirSync(join(directory, "taken"));
  await eventually(() => states.length === 2);
  await file.close();
  expect(states[1]).toBeUndefined();
  expect(readFileSync(path, "utf8")).toBe("a\nb\n");
});

test("a disk that is full within a line and has room again has that line whole", async () => {
  const path = join(directory, "short");
  const probe = await open(path, "a");
  const prototype = Object.getPrototypeOf(probe) as { write: (...args: unknown[]) => unknown };
  await probe.close();
  const { write } = prototype;
  let calls = 0;
  prototype.write = function (this: unknown, bytes: unknown, offset: unknown) {
    calls += 1;
    if (calls === 1) return write.call(this, bytes, offset, 5);
    if (calls === 2) return Promise.reject(Object.assign(new Error("full"), { code: "ENOSPC" }));
    return write.call(this, bytes, offset);
  };
  try {
    const { file, states } = lineFile({ path });
    file.write("one line");
    await eventually(() => states.length === 2);
    file.write("another");
    await file.close();
  } finally {
    prototype.write = write;
  }
  expect(readFileSync(path, "utf8")).toBe("one line\nanother\n");
});
