/** Orders of the kill switch as replicas hear of them, whose clocks differ, and its file as others write into it. */
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterEach, expect, test, vi } from "vitest";
import { Kills } from "../../../src/app/kills/kills.ts";
import { writeAtomically } from "../../../src/files/atomic-file.ts";
import { killName } from "../../../src/pipeline/kill-switch.ts";
import { Feed } from "../../../src/state/feed.ts";
import { MemoryStore } from "../../../src/state/memory-store.ts";
import { Metrics } from "../../../src/telemetry/metrics.ts";

vi.mock(import("../../../src/files/atomic-file.ts"), { spy: true });

const kill = { scope: "caller", value: "x" } as const;
const ends: (() => void)[] = [];

afterEach(() => {
  vi.useRealTimers();
  for (const end of ends.splice(0)) end();
});

function killsWith(over: {
  readonly file?: string;
  readonly feed?: Feed;
  readonly apply?: () => Promise<number>;
}): Kills {
  const metrics = new Metrics({ version: "0", generation: () => 1 });
  const kills = new Kills({
    log: pino({ level: "silent" }),
    metrics,
    file: over.file,
    feed: over.feed,
    apply: over.apply ?? (() => Promise.resolve(0)),
  });
  ends.push(() => {
    kills.close();
    metrics.close();
  });
  return kills;
}

async function replicas(): Promise<Kills[]> {
  const store = new MemoryStore({ maxBytes: 1_000_000 });
  const all = [0, 1].map(() => {
    const feed = new Feed({ store, name: "kills", keptMs: 60_000, isShared: false });
    ends.push(() => feed.close());
    return killsWith({ feed });
  });
  await Promise.all(all.map((one) => one.start()));
  return all;
}

test("a kill after a release of a replica whose clock is ahead stops it everywhere", async () => {
  vi.useFakeTimers({ toFake: ["Date"], now: 1_000_000 });
  const [ahead, right] = await replicas();
  await ahead?.kill(kill, "test");
  await vi.waitFor(() => expect(right?.kills).toHaveLength(1));
  await ahead?.release(killName(kill), "test");
  await vi.waitFor(() => expect(right?.kills).toEqual([]));
  vi.setSystemTime(990_000);
  await right?.kill(kill, "test");
  await vi.waitFor(() => expect(ahead?.kills).toHaveLength(1));
});

test("a release in the millisecond of its kill is heard", async () => {
  vi.useFakeTimers({ toFake: ["Date"], now: 1_000_000 });
  const [one, other] = await replicas();
  await one?.kill(kill, "test");
  await one?.release(killName(kill), "test");
  await other?.kill({ ...kill, value: "y" }, "test");
  await vi.waitFor(() => expect(one?.kills.map(killName)).toEqual(["caller y"]));
  expect(other?.kills.map(killName)).toEqual(["caller y"]);
});

function newFile(): string {
  const directory = mkdtempSync(join(tmpdir(), "kills-"));
  ends.push(() => rmSync(directory, { recursive: true }));
  return join(directory, "kills");
}

test("a line that somebody adds right behind a write of the proxy counts", async () => {
  const file = newFile();
  const kills = killsWith({ file });
  const { writeAtomically: write } = await vi.importActual<{
    writeAtomically: typeof writeAtomically;
  }>("../../../src/files/atomic-file.ts");
  vi.mocked(writeAtomically).mockImplementationOnce(async (path, ...rest) => {
    await write(path, ...rest);
    appendFileSync(path, "caller y # by hand\n");
  });
  await kills.kill(kill, "test");
  await kills.kill({ ...kill, value: "z" }, "test");
  expect(kills.kills.map(killName)).toEqual(["caller x", "caller y", "caller z"]);
});

test("a line that somebody adds while an order is carried out counts, and what is released stays so", async () => {
  const file = newFile();
  let during = (): void => undefined;
  const kills = killsWith({
    file,
    apply: () => {
      during();
      return Promise.resolve(0);
    },
  });
  await kills.kill(kill, "test");
  during = () => {
    during = () => undefined;
    appendFileSync(file, "caller y # by hand\n");
  };
  await kills.release(killName(kill), "test");
  expect(kills.kills.map(killName)).toEqual(["caller y"]);
  expect(readFileSync(file, "utf8")).toMatch(/^caller y/m);
  expect(readFileSync(file, "utf8")).not.toMatch(/^caller x/m);
});
