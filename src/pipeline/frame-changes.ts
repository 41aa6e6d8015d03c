/** What the steps of a pipeline make of one frame, one after the other. */
import { type Decision, passed, type ResponseVerdict } from "./decision.ts";
import type { Frame } from "./plugin.ts";

type Pass = Extract<ResponseVerdict, { kind: "pass" }>;

/** The frame as the next step sees it, and what becomes of it. */
export class FrameChanges {
  seen: Frame;
  #verdict: Pass = passed;

  constructor(frame: Frame) {
    this.seen = frame;
  }

  get verdict(): Pass {
    return this.#verdict;
  }

  /** Takes over what a step decided; the verdict where no further step is asked. */
  take(decision: Decision): Pass | undefined {
    if (decision.action !== "modify" || decision.frame === undefined) return undefined;
    const change = decision.frame;
    if ("isHeld" in change) {
      this.#verdict = { ...this.#verdict, isHeld: true };
    } else if ("instead" in change) {
      // What the origin said is still there to be counted and judged by the steps that follow.
      this.#verdict = { ...this.#verdict, instead: change.instead };
    } else {
      this.#verdict = { ...this.#verdict, frame: change };
      // Earlier steps do not get a frame that is dropped.
      if (change.data === undefined) return this.#verdict;
      this.seen = { ...this.seen, data: change.data };
    }
    return undefined;
  }
}
