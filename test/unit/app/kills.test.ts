/** Orders of the kill switch as replicas hear of them, whose clocks differ. */
import { pino } from "pino";
import { afterEach, expect, test, vi } from "vitest";
import { Kills } from "../../../src/app/kills/kills.ts";
import { killName } from "../../../src/pipeline/kill-switch.ts";
import { Feed } from "../../../src/state/feed.ts";
import { MemoryStore } from "../../../src/state/memory-store.ts";
import { Metrics } from "../../../src/telemetry/metrics.ts";

const kill = { scope: "caller", value: "x" } as const;
const ends: (() => void)[] = [];

afterEach(() => {
  vi.useRealTimers();
  for (const end of ends.splice(0)) end();
});

async function replicas(): Promise<Kills[]> {
  const store = new MemoryStore({ maxBytes: 1_000_000 });
  const all = [0, 1].map(() => {
    const metrics = new Metrics({ version: "0", generation: () => 1 });
    const feed = new Feed({ store, name: "kills", keptMs: 60_000, isShared: false });
    const kills = new Kills({
      log: pino({ level: "silent" }),
      metrics,
      file: undefined,
      feed,
      apply: () => Promise.resolve(0),
    });
    ends.push(() => {
      kills.close();
      feed.close();
      metrics.close();
    });
    return kills;
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
