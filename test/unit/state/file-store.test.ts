/** The file store: what was answered is there after any end of the process, and a broken file is said. */
import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, expect, test } from "vitest";
import { FileStore } from "../../../src/state/file-store.ts";

const directory = mkdtempSync(join(tmpdir(), "authbridge-state-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let count = 0;
const newPath = (): string => join(directory, `state-${count++}`);

async function opened(path: string, minCompactBytes?: number): Promise<FileStore> {
  const store = new FileStore({
    path,
    maxBytes: 1_048_576,
    timeoutMs: 10_000,
    ...(minCompactBytes === undefined ? {} : { minCompactBytes }),
  });
  await store.open();
  return store;
}

test("values and counters are there at the next start, and what was deleted is not", async () => {
  const path = newPath();
  const first = await opened(path);
  await first.set("a", "one");
  await first.set("gone", "x");
  await first.delete("gone");
  await first.add([{ key: "n", by: 41 }]);
  await first.close();
  const second = await opened(path);
  expect([second.get("a"), second.get("gone")]).toEqual(["one", undefined]);
  expect((await second.add([{ key: "n", by: 1 }])).values).toEqual([42]);
  await second.close();
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test("what a counter has counted is there at the next start, also after the log was written anew", async () => {
  const path = newPath();
  const named = (member: string) => ({ key: "n", by: 1, below: 3, member });
  const first = await opened(path);
  await first.add([named("a")]);
  await first.add([named("b")]);
  await first.close();
  for (const _ of ["log", "written anew"]) {
    const store = await opened(path);
    for (const member of ["a", "b"]) {
      expect((await store.add([named(member)])).values).toEqual([2]);
    }
    await store.close();
  }
  const last = await opened(path, 1);
  await last.add([named("b")]);
  await last.add([named("c")]);
  expect(await last.add([named("d")])).toEqual({ refusedAt: 0, values: [3] });
  await last.close();
});

test("one process has the file", async () => {
  const path = newPath();
  const first = await opened(path);
  await expect(opened(path)).rejects.toThrow("another process has this state file");
  await first.close();
  await (await opened(path)).close();
});

test("a line that was not finished is the end of the log; one that is broken before it refuses the start", async () => {
  const path = newPath();
  const first = await opened(path);
  await first.set("a", "one");
  await first.close();
  appendFileSync(path, "0000");
  const second = await opened(path);
  expect(second.get("a")).toBe("one");
  await second.set("b", "two");
  await second.set("c", "three");
  await second.close();
  const lines = readFileSync(path, "utf8").split("\n");
  writeFileSync(path, [lines[0], lines[1]?.replace("two", "2wo"), ...lines.slice(2)].join("\n"));
  await expect(opened(path)).rejects.toThrow(`${path}:2: not a line of a state file`);
  writeFileSync(path, "something else\n");
  await expect(opened(path)).rejects.toThrow(`${path}:1: not a line of a state file`);
});

test("the log is written anew when it has grown, and loses nothing", async () => {
  const path = newPath();
  const store = await opened(path, 2_000);
  for (let at = 1; at <= 500; at += 1) {
    expect((await store.add([{ key: "n", by: 1 }])).values).toEqual([at]);
  }
  expect(statSync(path).size).toBeLessThan(4_000);
  await store.close();
  const again = await opened(path);
  expect((await again.add([{ key: "n", by: 0 }])).values).toEqual([500]);
  await again.close();
});

const writer = `
import { FileStore } from ${JSON.stringify(new URL("../../../src/state/file-store.ts", import.meta.url).href)};
const store = new FileStore({ path: process.argv[1], maxBytes: 1048576, timeoutMs: 10000, minCompactBytes: 3000 });
await store.open();
const work = async () => {
  for (;;) {
    const { values } = await store.add([{ key: "n", by: 1 }]);
    process.stdout.write(values[0] + "\\n");
  }
};
await Promise.all([work(), work(), work()]);
`;

async function killedAfter(path: string, lines: number): Promise<number> {
  const child: ChildProcess = spawn(
    process.execPath,
    ["--input-type=module-typescript", "-e", writer, path],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  let highest = 0;
  let seen = 0;
  if (child.stdout === null) throw new Error("no output");
  const reader = createInterface({ input: child.stdout });
  reader.on("line", (line) => {
    highest = Math.max(highest, Number(line));
    seen += 1;
    if (seen === lines) child.kill("SIGKILL");
  });
  await Promise.all([once(child, "close"), once(reader, "close")]);
  return highest;
}

test("after kill -9 everything that was answered is there, at whichever moment it comes", async () => {
  const path = newPath();
  let answered = 0;
  for (const lines of [1, 17, 60, 250]) {
    answered = await killedAfter(path, lines);
    const store = await opened(path);
    const { values } = await store.add([{ key: "n", by: 0 }]);
    expect(values[0]).toBeGreaterThanOrEqual(answered);
    // Three were on their way.
    expect(values[0]).toBeLessThanOrEqual(answered + 3);
    await store.close();
  }
  expect(answered).toBeGreaterThan(300);
});

test("a disk that does not take it: nothing is answered as if it had been written", async () => {
  const store = await opened(newPath());
  const full = new FileStore({ path: "/dev/full", maxBytes: 1_000, timeoutMs: 1_000 });
  await expect(full.open()).rejects.toThrow();
  await store.close();
  await expect(store.set("a", "b")).rejects.toMatchObject({ code: "state.unavailable" });
});

/** A store that cannot write any more. */
async function broken(): Promise<FileStore> {
  const folder = mkdtempSync(join(directory, "gone-"));
  const store = await opened(join(folder, "state"));
  const counted = { key: "n", by: 1, member: "x" };
  await store.add([counted, { key: "given", by: 2 }]);
  rmSync(folder, { recursive: true });
  // To take something out, the log is written anew, into a folder that is not there.
  await expect(store.add([{ ...counted, by: -1 }])).rejects.toThrow("ENOENT");
  return store;
}

test("more than there was is not put back where nothing could be taken out", async () => {
  const store = await broken();
  await expect(store.add([{ key: "given", by: -5 }])).rejects.toThrow("the last write failed");
  expect(store.counters(["n", "given"])).toEqual([1, 2]);
  await store.close();
});

test("a call that comes while the one before it fails is told so at once", async () => {
  for (let turns = 0; turns < 20; turns += 1) {
    const store = await broken();
    const first = expect(store.set("a", "x")).rejects.toThrow("the last write failed");
    for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
    await expect(store.set("b", "x")).rejects.toThrow("the last write failed");
    await first;
    await store.close();
  }
});
