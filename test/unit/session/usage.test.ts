import { expect, test } from "vitest";
import type { SessionEvent } from "../../../src/session/event.ts";
import { Usage } from "../../../src/session/usage.ts";

const minute = 60_000;
const start = Date.UTC(2026, 0, 1, 12);

function answer(at: number, fields: Partial<SessionEvent> = {}): SessionEvent {
  return {
    sessionId: "s",
    at: new Date(at).toISOString(),
    direction: "outbound",
    phase: "response",
    requestId: "f",
    host: "a.example",
    statusCode: 200,
    durationMs: 10,
    ...fields,
  };
}

const ask = { windowMs: 3 * minute, resolutionMs: minute, session: "", group: "none" } as const;

test("every minute of the window is there, idle ones too, with counts, latency and totals", () => {
  const usage = new Usage({ now: () => start + 2 * minute + 30_000 });
  usage.record(answer(start));
  usage.record(answer(start, { durationMs: 30, inference: { model: "m", totalTokens: 5 } }));
  usage.record(answer(start, { phase: "request" }));
  usage.record(answer(start + 2 * minute, { phase: "denied", statusCode: 403 }));
  const { buckets, totals, priced } = usage.snapshot(ask);
  expect(buckets).toEqual([
    { at: "2026-01-01T12:00:00.000Z", requests: 2, tokens: 5, latMeanMs: 20, latStdDevMs: 10 },
    { at: "2026-01-01T12:01:00.000Z", requests: 0 },
    { at: "2026-01-01T12:02:00.000Z", requests: 1, errors: 1, denied: 1, latMeanMs: 10 },
  ]);
  expect(totals).toEqual({ requests: 3, errors: 1, denied: 1, tokens: 5 });
  expect(priced).toBe(false);
});

test("wider buckets weigh every message alike", () => {
  const usage = new Usage({ now: () => start + minute });
  for (const ms of [10, 10, 10]) usage.record(answer(start, { durationMs: ms }));
  usage.record(answer(start + minute, { durationMs: 50 }));
  const [wide] = usage.snapshot({ ...ask, windowMs: 2 * minute, resolutionMs: 2 * minute }).buckets;
  expect(wide).toMatchObject({ requests: 4, latMeanMs: 20 });
});

test("one session, one group; the cost that a plugin published", () => {
  const usage = new Usage({ now: () => start });
  const step = { plugin: "p", action: "allow", phase: "request", reason: "r" } as const;
  usage.record(
    answer(start, {
      plugins: { budget: { costMicros: 7 } },
      invocations: { outbound: [step, step] },
    }),
  );
  usage.record(answer(start, { sessionId: "other", host: "b.example" }));
  const one = { ...ask, windowMs: minute };
  expect(usage.snapshot({ ...one, session: "s" })).toMatchObject({
    totals: { requests: 1, costMicros: 7, pricedRequests: 1 },
    priced: true,
  });
  expect(usage.snapshot({ ...one, group: "host" }).buckets[0]?.series).toEqual({
    "a.example": { requests: 1, costMicros: 7, pricedRequests: 1 },
    "b.example": { requests: 1 },
  });
  expect(usage.snapshot({ ...one, group: "plugin" }).buckets[0]?.series).toMatchObject({
    p: { requests: 1 },
  });
  expect(usage.snapshot({ ...one, session: "nobody" }).totals).toEqual({ requests: 0 });
});

test("labels, sessions and minutes that strangers make up are bounded", () => {
  const usage = new Usage({ now: () => start + 400 * minute });
  for (let index = 0; index < 1_000; index += 1) {
    const at = start + (index % 401) * minute;
    usage.record(answer(at, { host: `h${index}.example`, sessionId: `s${index}` }));
    usage.record(answer(start + 400 * minute, { host: `h${index}.example` }));
  }
  const { buckets } = usage.snapshot({ ...ask, windowMs: 360 * minute, group: "host" });
  expect(buckets).toHaveLength(360);
  expect(Object.keys(buckets.at(-1)?.series ?? {}).length).toBeLessThanOrEqual(65);
});
