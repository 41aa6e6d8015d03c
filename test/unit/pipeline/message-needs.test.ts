/** Who has to read a body before a pipeline is asked, and whether what cannot be read may pass. */
import { expect, test } from "vitest";
import { pipelineOf, type StepShape } from "../../support/pipeline-of.ts";
import { message } from "../../support/plugin-bench.ts";

const request = { request: "read" } as const;
const response = { response: "read" } as const;
const guard: StepShape = { plugin: {}, body: request };
const watcher: StepShape = { plugin: {}, body: request, onError: "observe" };
const parser: StepShape = { plugin: {}, body: request, observes: true };
const choosy: StepShape = {
  plugin: { wantsBody: ({ pathname }) => pathname === "/mine" },
  body: request,
};

test.each<[name: string, steps: StepShape[], need: string]>([
  ["no step", [], "nobody"],
  ["a step that reads answers", [{ plugin: {}, body: response }], "nobody"],
  ["a step that can refuse", [parser, guard], "guards"],
  ["steps that cannot refuse", [watcher, parser], "observers"],
  ["a step that does not want this one", [choosy], "nobody"],
  ["others than the one that does not want it", [choosy, parser], "observers"],
])("a request's body is read for %s", (_name, steps, need) => {
  expect(pipelineOf(steps).bodyNeed(message({ path: "/other" }))).toBe(need);
});

test("a step that wants the body of this message gets it", () => {
  expect(pipelineOf([choosy]).bodyNeed(message({ path: "/mine" }))).toBe("guards");
});

test.each<[name: string, step: StepShape, isGuarded: boolean]>([
  ["judges heads", { onResponse: () => undefined }, false],
  ["reads bodies", { plugin: {}, body: response }, true],
  ["judges frames", { onFrame: () => undefined }, true],
  ["reads bodies and only observes", { plugin: {}, body: response, onError: "observe" }, false],
  ["reads bodies and refuses nothing", { plugin: {}, body: response, observes: true }, false],
  ["does not want this one", { plugin: { wantsAnswerBody: () => false }, body: response }, false],
])("an answer that cannot be read is stopped by a step that %s: %#", (_name, step, isGuarded) => {
  expect(pipelineOf([step]).responseNeeds(message()).isGuarded).toBe(isGuarded);
});
