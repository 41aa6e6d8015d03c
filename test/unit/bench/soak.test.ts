/** What a soak makes of what it saw: each verdict can fail, and only by what it is about. */
import { describe, expect, test } from "vitest";
import { type Answer, growth, Ledger, type Sample } from "../../../bench/soak/ledger.ts";

const calm: Sample = {
  rssMiB: 100,
  descriptors: 30,
  held: 0,
  heapMiB: 40,
  timers: 9,
  entries: 900,
  asked: 0,
};
const ok: Answer = { status: 200, digest: "d" };

const brokenBy = (act: (ledger: Ledger) => void): string[] => {
  const ledger = new Ledger();
  ledger.samples.push(calm, calm, calm);
  ledger.answered("one", ok, [200], "d");
  act(ledger);
  return ledger
    .verdicts()
    .filter(({ isKept }) => !isKept)
    .map(({ promise }) => promise);
};

describe("a verdict of a soak", () => {
  test("is kept where everything is answered as it is due", () => {
    expect(brokenBy(() => undefined)).toEqual([]);
  });

  test.each<[string, string, (ledger: Ledger) => void]>([
    ["a cut connection", "lost", (l) => l.answered("x", { status: 0 }, [200])],
    ["what had to happen", "lost", (l) => l.lost("x")],
    ["another digest", "byte", (l) => l.answered("x", { status: 200, digest: "e" }, [200], "d")],
    ["a body without a digest", "byte", (l) => l.answered("x", { status: 200 }, [200], "d")],
    ["an unhandled rejection", "rejection", (l) => l.faults.push("unhandled rejection")],
    ["a refusal that no metric counts", "counted", (l) => l.answered("x", { status: 403 }, [403])],
    ["memory", "leak", (l) => l.samples.push({ ...calm, rssMiB: 200 })],
    ["heap", "leak", (l) => l.samples.push({ ...calm, heapMiB: 90 })],
    ["timers", "leak", (l) => l.samples.push({ ...calm, timers: 40 })],
    ["entries of maps", "leak", (l) => l.samples.push({ ...calm, entries: 9_000 })],
    [
      "an entry for each request",
      "leak",
      (l) => l.samples.push({ ...calm, entries: 1_900, asked: 1_000 }),
    ],
    ["descriptors", "leak", (l) => l.samples.push({ ...calm, descriptors: 40 })],
    ["a connection that stays", "leak", (l) => l.samples.push({ ...calm, held: 1 })],
  ])("fails by %s", (_what, promise, act) => {
    expect(brokenBy(act)).toEqual([promise]);
  });

  test("compares the first and the last third of the cycles by medians, without those that warm up", () => {
    const samples = [5, 5, 10, 90, 40, 41, 22, 90].map((rssMiB) => ({ ...calm, rssMiB }));
    expect(growth(samples, "rssMiB")).toBe(0);
  });
});
