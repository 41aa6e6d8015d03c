/** What a chain asks of answers, and hooks that have nothing to say. */
import { pino } from "pino";
import { expect, test } from "vitest";
import { Pipeline } from "../../../src/pipeline/pipeline.ts";
import type { Step } from "../../../src/pipeline/step-runner.ts";
import { allow, deny, type Plugin, replaceFrame } from "../../../src/pipeline/plugin.ts";
import { message } from "../../support/plugin-bench.ts";

function chainOf(...plugins: readonly Plugin[]): Pipeline {
  const steps = plugins.map((plugin, index): Step => {
    const body = { response: "read" } as const;
    return { name: `step-${index}`, plugin, onError: "enforce", stages: ["request"], body };
  });
  const log = pino({ level: "silent" });
  return new Pipeline(steps, { direction: "outbound", otherwise: "deny", log });
}

const parser: Plugin = {
  wantsAnswer: (context) => context.pathname === "/mine",
  onFrame: () => undefined,
};

test("an answer that no step wants is not held back, and one that a step wants is", () => {
  const chain = chainOf(parser);
  const needs = {
    response: false,
    responseBody: true,
    rewritesResponse: false,
    frames: true,
    isGuarded: true,
  };
  expect(chain.responseNeeds(message({ path: "/mine?x=1" }))).toMatchObject(needs);
  expect(chain.responseNeeds(message({ path: "/other" }))).toMatchObject({
    ...needs,
    responseBody: false,
    frames: false,
    isGuarded: false,
  });
});

test("a step that does not say which answers it wants gets every answer", () => {
  const chain = chainOf(parser, { onResponse: () => allow("fine") });
  expect(chain.responseNeeds(message({ path: "/other" }))).toMatchObject({
    response: true,
    responseBody: true,
    frames: false,
  });
});

test("a hook that says nothing is not recorded and consents to nothing", async () => {
  const chain = chainOf({ onRequest: () => undefined, onFrame: () => undefined });
  const context = message();
  expect(await chain.runRequest(context)).toMatchObject({
    denial: { code: "policy.forbidden" },
  });
  await chain.runFrame(context, { data: Buffer.from("x"), last: false });
  expect(context.invocations).toEqual([]);
});

test("a stream of frames leaves a bounded record, and the refusal that ends it is in it", async () => {
  const data = Buffer.from("x");
  const chain = chainOf({
    onFrame: (_context, { last }) =>
      last ? deny("ended", { code: "policy.forbidden", message: "no" }) : replaceFrame("cut", data),
  });
  const context = message();
  for (let at = 0; at < 2_000; at += 1) await chain.runFrame(context, { data, last: false });
  await chain.runFrame(context, { data, last: true });
  expect(context.invocations.length).toBeLessThanOrEqual(501);
  expect(context.invocations.at(-1)?.reason).toBe("ended");
});
