/** Which parts of a message a pipeline must have in memory, or judge frame by frame, before they are forwarded. */
import type { RequestContext } from "./context.ts";
import type { BodyJudge } from "./plugin.ts";
import { isGuard, type Step } from "./step-runner.ts";

/** The needs of a pipeline for one response. */
export interface ResponseNeeds {
  /** Some step judges the head. */
  readonly response: boolean;
  /** The whole body, where the response is no stream. */
  readonly responseBody: boolean;
  /** A step replaces bodies, so that even a stream has to be collected. */
  readonly rewritesResponse: boolean;
  readonly frames: boolean;
  /** Some step that reads it can refuse it: an unreadable body must not pass. */
  readonly isGuarded: boolean;
}

type Reader = Pick<Step, "plugin" | "body" | "onError" | "observes">;

/** The judge of one step. */
export interface StepJudge {
  readonly step: Step;
  readonly judge: BodyJudge;
}

/** Which steps have to read a request's body before the pipeline runs. */
export type BodyNeed = "nobody" | "observers" | "guards";

/**
 * Says what a pipeline needs of the response to a message.
 *
 * A step that parses one protocol declines the responses to most messages (`wantsAnswer`): they
 * are then streamed, whatever their size.
 */
export function responseNeedsOf(
  steps: readonly Reader[],
): (context: RequestContext) => ResponseNeeds {
  const all = sum(steps, steps);
  const isFixed = steps.every(
    ({ plugin }) => plugin.wantsAnswer === undefined && plugin.wantsAnswerBody === undefined,
  );
  if (isFixed) return () => all;
  return (context) => {
    const judging = steps.filter(({ plugin }) => plugin.wantsAnswer?.(context) ?? true);
    return sum(
      judging,
      judging.filter(({ plugin }) => plugin.wantsAnswerBody?.(context) ?? true),
    );
  };
}

/** What is needed by both: what was not needed when the request left does not come to be needed. */
export function narrower(before: ResponseNeeds, now: ResponseNeeds): ResponseNeeds {
  if (before === now) return before;
  return {
    response: before.response,
    responseBody: before.responseBody && now.responseBody,
    rewritesResponse: before.rewritesResponse && now.rewritesResponse,
    frames: before.frames && now.frames,
    isGuarded: before.isGuarded && now.isGuarded,
  };
}

/** The judges past which a body can be streamed; undefined where a step that can refuse has to have it whole. */
export function bodyJudgesOf(
  steps: readonly Step[],
): (context: RequestContext) => readonly StepJudge[] | undefined {
  const readers = steps.filter((step) => step.body.request !== undefined && isGuard(step));
  if (readers.every(({ plugin }) => plugin.judgeStream === undefined)) return () => undefined;
  return (context) => {
    const wanting = readers.filter(({ plugin }) => plugin.wantsBody?.(context) ?? true);
    const judges: StepJudge[] = [];
    for (const step of wanting) {
      const judge = step.plugin.judgeStream?.(context);
      if (judge === undefined) return undefined;
      judges.push({ step, judge });
    }
    return judges;
  };
}

/** Says which steps need a request's body in memory before the pipeline runs. */
export function bodyNeedOf(steps: readonly Reader[]): (context: RequestContext) => BodyNeed {
  const readers = steps.filter(({ body }) => body.request !== undefined);
  return (context) => {
    const wanting = readers.filter(({ plugin }) => plugin.wantsBody?.(context) ?? true);
    if (wanting.length === 0) return "nobody";
    return wanting.some(isGuard) ? "guards" : "observers";
  };
}

/** The needs of the steps that judge the response, and of those that read its body. */
function sum(judging: readonly Reader[], reading: readonly Reader[]): ResponseNeeds {
  return Object.freeze({
    response: judging.some(({ plugin }) => plugin.onResponse !== undefined),
    responseBody: reading.some(({ body }) => body.response !== undefined),
    rewritesResponse: reading.some(({ body }) => body.response === "write"),
    frames: reading.some(({ plugin }) => plugin.onFrame !== undefined),
    isGuarded: reading.some(
      (step) =>
        isGuard(step) && (step.body.response !== undefined || step.plugin.onFrame !== undefined),
    ),
  });
}
