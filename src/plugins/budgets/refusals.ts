/** What becomes of a message that a budget has no room for, or that nobody can count. */
import { messageOf } from "../../errors.ts";
import {
  type Answer,
  type Decision,
  type Denial,
  deny,
  observe,
  type PluginDeps,
  type RequestContext,
} from "../../pipeline/plugin.ts";
import { type Exceeded, rpcOf } from "./entry.ts";

/** Options of {@link Refusals}. */
export interface RefusalOptions {
  readonly whenAway: "refuse" | "allow";
  /** Behind a refusal because of that: which key lets messages pass. */
  readonly awayHint?: string;
  denial(this: void, exceeded: Exceeded): Denial;
  /** Has the last word on a message that a hard limit refuses; absent: it is refused. */
  appeal?(
    this: void,
    context: RequestContext,
    exceeded: Exceeded,
  ): Decision | Promise<Decision | undefined> | undefined;
}

/** The refusals of one instance. */
export class Refusals {
  readonly #options: RefusalOptions;
  readonly #deps: Pick<PluginDeps, "clock" | "count">;

  constructor(options: RefusalOptions, deps: Pick<PluginDeps, "clock" | "count">) {
    this.#options = options;
    this.#deps = deps;
  }

  exceeded(context: RequestContext, exceeded: Exceeded): Answer | Promise<Answer> {
    const appeal = this.#options.appeal?.(context, exceeded);
    if (appeal instanceof Promise) {
      return appeal.then((said) => said ?? this.refuse(context, exceeded));
    }
    return appeal ?? this.refuse(context, exceeded);
  }

  refuse(context: RequestContext, exceeded: Exceeded): Decision {
    this.#deps.count("exceeded");
    const { limit, used, until, isHeld } = exceeded;
    // What calls under way hold is free again soon.
    const waitMs = isHeld ? 0 : until - this.#deps.clock.now();
    const seconds = Math.max(1, Math.ceil(waitMs / 1_000));
    return deny(
      isHeld ? "budget_held" : "budget_exceeded",
      {
        ...this.#options.denial(exceeded),
        ...rpcOf(context),
        headers: Number.isFinite(seconds) ? { "retry-after": String(seconds) } : undefined,
      },
      { budget: limit.name, unit: limit.unit, used, limit: limit.limit },
    );
  }

  away(error: unknown): Decision {
    this.#deps.count("state_away");
    if (this.#options.whenAway === "allow") return observe("state_away");
    const message = `the budget cannot be checked: ${messageOf(error)}${this.#options.awayHint ?? ""}`;
    return deny("state_away", { code: "state.unavailable", message, unavailable: true });
  }
}
