/** Which parts of a message a chain must have in memory, or judge frame by frame, before they go on. */
import type { RequestContext } from "./context.ts";
import type { BodyAccess, Plugin } from "./plugin.ts";

/** What a chain asks of one answer. */
export interface AnswerNeeds {
  /** Some step has a say in the head. */
  readonly response: boolean;
  /** The whole body, where the answer is no stream. */
  readonly responseBody: boolean;
  /** A step replaces bodies, so that even a stream has to be collected. */
  readonly rewritesResponse: boolean;
  readonly frames: boolean;
}

interface Reader {
  readonly plugin: Plugin;
  readonly body: BodyAccess;
}

/**
 * Says what a chain needs of the answer to a message.
 *
 * A step that parses one protocol says of most messages that their answers are not its business (`wantsAnswer`): they
 * are then streamed, whatever their size.
 */
export function answerNeedsOf(steps: readonly Reader[]): (context: RequestContext) => AnswerNeeds {
  const all = sum(steps);
  if (steps.every(({ plugin }) => plugin.wantsAnswer === undefined)) return () => all;
  return (context) => sum(steps.filter(({ plugin }) => plugin.wantsAnswer?.(context) ?? true));
}

/** Says whether a request's body must be in memory before the chain is asked. */
export function bodyNeedOf(steps: readonly Reader[]): (context: RequestContext) => boolean {
  const readers = steps.filter(({ body }) => body.request !== undefined);
  return (context) => readers.some(({ plugin }) => plugin.wantsBody?.(context) ?? true);
}

function sum(steps: readonly Reader[]): AnswerNeeds {
  return Object.freeze({
    response: steps.some(({ plugin }) => plugin.onResponse !== undefined),
    responseBody: steps.some(({ body }) => body.response !== undefined),
    rewritesResponse: steps.some(({ body }) => body.response === "write"),
    frames: steps.some(({ plugin }) => plugin.onFrame !== undefined),
  });
}
