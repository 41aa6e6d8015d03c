/** What is recorded of a flow's end (contract 5, cases G12 and G20). */
import { expect, test } from "vitest";
import { Pipeline } from "../../../../src/pipeline/pipeline.ts";
import { FlowRecorder } from "../../../../src/proxy/flow/finish.ts";
import { Attribution } from "../../../../src/session/attribution.ts";
import { ContentPolicy } from "../../../../src/session/content.ts";
import { Redaction } from "../../../../src/session/redaction.ts";
import type { SessionEvent } from "../../../../src/session/event.ts";
import { SessionRecorder } from "../../../../src/session/recorder.ts";
import { SessionStore } from "../../../../src/session/store.ts";
import { HttpDurations } from "../../../../src/telemetry/http-durations.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";
import { Metrics } from "../../../../src/telemetry/metrics.ts";
import { message } from "../../../support/plugin-bench.ts";

const ending = { bytesReceived: 0, bytesSent: 0, cancelled: false };
const denial = { code: "policy.forbidden", message: "no" };

function recorder() {
  const events: SessionEvent[] = [];
  const log = createLogger("silent");
  const metrics = new Metrics({ version: "0", generation: () => 1 });
  const pipeline = new Pipeline([], { direction: "outbound", otherwise: "allow", log });
  const flows = new FlowRecorder({
    log,
    metrics,
    sessions: new SessionRecorder({
      sinks: [{ record: (event) => void events.push(event) }],
      attribution: new Attribution({ store: new SessionStore({ ttlMs: Infinity }) }),
      content: new ContentPolicy({ bodies: "full", maxChars: 0, redaction: new Redaction() }),
    }),
  });
  return { events, flows, pipeline, metrics };
}

test("G12: a denial that no plugin took part in is no event, one that a plugin decided is", async () => {
  const { events, flows, pipeline, metrics } = recorder();
  const untouched = message({});
  await flows.finished(untouched, pipeline, { ...ending, status: 403, refused: true, denial });
  expect(events).toEqual([]);
  const judged = message({});
  judged.invocations.push({ plugin: "p", action: "deny", phase: "request", reason: "r" });
  await flows.finished(judged, pipeline, { ...ending, status: 403, refused: true, denial });
  expect(events).toMatchObject([
    { phase: "denied", statusCode: 403, error: { kind: "policy", code: "policy.forbidden" } },
  ]);
  metrics.close();
});

test.each([
  ["a check of the response that could not be made", { plugin: "p", status: 503 }, "unavailable"],
  ["one whose status says otherwise", { plugin: "p", unavailable: true }, "unavailable"],
  ["a response that a plugin refused", { plugin: "p" }, "denied"],
  ["a fault of the origin", { code: "upstream.timeout" }, "error"],
])(
  "%s is told from the others after the request has gone on, too",
  async (_what, more, outcome) => {
    const { flows, pipeline, metrics } = recorder();
    const end = { ...ending, status: 502, refused: false, denial: { ...denial, ...more } };
    await flows.finished(message({}), pipeline, end);
    const text = await metrics.render();
    expect(text).toMatch(
      new RegExp(`^authbridge_flows_total\\{.*outcome="${outcome}".*\\} 1$`, "m"),
    );
    metrics.close();
  },
);

test("durations have each request once, and no connection that was upgraded", async () => {
  const { pipeline, metrics } = recorder();
  const durations = new HttpDurations();
  const flows = new FlowRecorder({
    log: createLogger("silent"),
    metrics,
    sessions: undefined,
    durations,
  });
  for (const status of [200, 101]) {
    const context = message({});
    flows.sent(context);
    flows.answered(context, status);
    await flows.finished(context, pipeline, { ...ending, status, refused: false });
  }
  const values = await durations.values();
  const statuses = values.flatMap((metric) =>
    (metric.values as { metricName?: string; labels: Record<string, unknown>; value: number }[])
      .filter(({ metricName }) => metricName?.endsWith("_count") === true)
      .map(({ labels, value }) => [metric.name, labels["http.response.status_code"], value]),
  );
  expect(statuses).toEqual([
    ["http.server.request.duration", 200, 1],
    ["http.client.request.duration", 200, 1],
  ]);
  metrics.close();
});

test("G20: an answer is recorded in the session of its request, whatever other flows do meanwhile", async () => {
  const { events, flows, pipeline, metrics } = recorder();
  const [mine, other] = [message({}), message({})];
  mine.sessionId = "mine";
  other.sessionId = "other";
  void flows.permitted(mine);
  void flows.permitted(other);
  await flows.finished(mine, pipeline, { ...ending, status: 200, refused: false });
  expect(events.map(({ sessionId, phase }) => [sessionId, phase])).toEqual([
    ["mine", "request"],
    ["other", "request"],
    ["mine", "response"],
  ]);
  metrics.close();
});

test("a flow that skipped the chain is no event", async () => {
  const { events, flows, metrics } = recorder();
  await flows.finished(message({}), undefined, { ...ending, status: 200, refused: false });
  expect(events).toEqual([]);
  metrics.close();
});
