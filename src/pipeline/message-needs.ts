/** Which parts of a message a pipeline must have in memory, or judge frame by frame, before they are forwarded. */
import type { RequestContext } from "./context.ts";
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
  /** The same once the response's head is there, and says that some steps need not read on. */
  forHead(context: RequestContext): ResponseNeeds;
}

type Reader = Pick<Step, "plugin" | "body" | "onError" | "observes">;

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
  const needs: ResponseNeeds = {
    response: judging.some(({ plugin }) => plugin.onResponse !== undefined),
    responseBody: reading.some(({ body }) => body.response !== undefined),
    rewritesResponse: reading.some(({ body }) => body.response === "write"),
    frames: reading.some(({ plugin }) => plugin.onFrame !== undefined),
    isGuarded: reading.some(
      (step) =>
        isGuard(step) && (step.body.response !== undefined || step.plugin.onFrame !== undefined),
    ),
    forHead: (context) => {
      const left = reading.filter(({ plugin }) => plugin.readsOn?.(context) ?? true);
      return left.length === reading.length ? needs : sum(judging, left);
    },
  };
  return Object.freeze(needs);
}
