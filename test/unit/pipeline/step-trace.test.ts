/** Steps of a pipeline as spans of the message's trace. */
import { expect, test } from "vitest";
import { allow, deny, type Plugin, replaceFrame } from "../../../src/pipeline/plugin.ts";
import type { FlowTrace } from "../../../src/telemetry/flow-trace.ts";
import { pipelineOf } from "../../support/pipeline-of.ts";
import { message } from "../../support/plugin-bench.ts";

function traced() {
  const parts: { readonly name: string; readonly facts: unknown }[] = [];
  const trace: FlowTrace = {
    traceparent: "",
    sent: () => undefined,
    part: (name, startedAt, facts) => {
      expect(startedAt).toBeLessThanOrEqual(performance.now());
      parts.push({ name, facts });
    },
    end: () => undefined,
  };
  const context = message();
  context.trace = trace;
  return { context, parts };
}

const span = (name: string, action: string, reason: string) => ({
  name: `${name} step-0`,
  facts: {
    "authbridge.plugin": "step-0",
    "authbridge.action": action,
    "authbridge.reason": reason,
  },
});

test.each([true, false])("each decision is a span, waited for: %s", async (isAsync) => {
  const saying = (reason: string) => () =>
    isAsync ? Promise.resolve(allow(reason)) : allow(reason);
  const pipeline = pipelineOf([
    {
      onRequest: saying("judged"),
      onCredential: saying("attached"),
      onResponse: saying("answered"),
    },
  ]);
  const { context, parts } = traced();
  await pipeline.runRequest(context);
  await pipeline.runResponse(context);
  expect(parts).toEqual([
    span("decision", "allow", "judged"),
    span("credential", "allow", "attached"),
    span("answer", "allow", "answered"),
  ]);
});

test("what a step counts for is told, and a fault is a refusal", async () => {
  const denial = { code: "policy.forbidden", message: "no" };
  const observed = { plugin: { onRequest: () => deny("no", denial) }, onError: "observe" } as const;
  const first = traced();
  await pipelineOf([observed]).runRequest(first.context);
  expect(first.parts).toEqual([span("decision", "observe", "no")]);
  const faulty: Plugin = { onRequest: () => Promise.reject(new Error("detail")) };
  const second = traced();
  await pipelineOf([faulty]).runRequest(second.context);
  expect(second.parts).toEqual([span("decision", "deny", "plugin_fault")]);
});

test("frames and messages are too many to be spans", async () => {
  const data = Buffer.from("x");
  const pipeline = pipelineOf([
    { onFrame: () => replaceFrame("changed", data), onMessage: () => allow("fine") },
  ]);
  const { context, parts } = traced();
  await pipeline.runFrame(context, { data, last: false });
  await pipeline.messages.judge(context, { from: "client", kind: "text", data });
  expect(parts).toEqual([]);
});
