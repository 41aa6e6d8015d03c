/** Whether a call can be counted at all: somebody has to have read it, and what it costs has to be known. */
import { BoundedMap } from "../../bounded-map.ts";
import { type Answer, deny, type PluginDeps, type RequestContext } from "../../pipeline/plugin.ts";
import type { Prices } from "../parsers/prices.ts";
import type { Limit } from "./limit.ts";
import type { Asked } from "./measures.ts";

/** Options of {@link Legibility}. */
export interface LegibilityOptions {
  readonly prices: Prices | undefined;
  readonly refusesUnknownModels: boolean;
  /** A parser has to have read calls of language models by then. */
  readonly needsView: boolean;
}

const maxModels = 1_000;

/** The check of one instance, and the models that it found without a price. */
export class Legibility {
  readonly #options: LegibilityOptions;
  readonly #limits: readonly Limit[];
  readonly #deps: Pick<PluginDeps, "count" | "log">;
  readonly #unknown = new BoundedMap<string, number>(maxModels);

  constructor(
    options: LegibilityOptions,
    limits: readonly Limit[],
    deps: Pick<PluginDeps, "count" | "log">,
  ) {
    this.#options = options;
    this.#limits = limits;
    this.#deps = deps;
  }

  /** How many calls there were of each model without a price. */
  get unknownModels(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#unknown);
  }

  /** Why a call cannot be counted: nobody could read it, or its model has no price. Hard limits refuse it. */
  problem(context: RequestContext, asked: Asked): Answer {
    if (!asked.isInference) return undefined;
    const { host } = context.destination;
    const model = asked.view?.model;
    const hard = this.#limits.filter(
      ({ options: { isHard, unit } }) => isHard && (unit === "tokens" || unit === "cost"),
    );
    if (asked.view === undefined) {
      if (!this.#options.needsView) return undefined;
      const isUnread = asked.isSocket !== true;
      // Whatever its model is, which nobody knows.
      const limit = hard.find((one) => one.isFor(host));
      if (limit === undefined) return undefined;
      const why = isUnread
        ? "its body was not read as a call of a language model (inference-parser has to stand before budgets, and limits.max_body bounds what it reads)"
        : "it goes over a WebSocket, which is not read; calls over HTTP are (mode: soft lets it pass)";
      const message = `the call cannot be counted for the budget "${limit.options.name}": ${why}`;
      const code = isUnread ? "request.malformed" : "policy.forbidden";
      return deny("call_unread", context.unread ?? { code, message });
    }
    const { prices, refusesUnknownModels } = this.#options;
    const named = model ?? "";
    const limit = this.#limits.find(
      (one) => one.options.unit === "cost" && one.covers(host, model),
    );
    if (limit === undefined || prices?.table?.knows(named) !== false) return undefined;
    this.#countUnknown(named);
    if (!limit.options.isHard || !refusesUnknownModels) return undefined;
    const message = `the model ${JSON.stringify(named.slice(0, 128))} has no price, so that the budget "${limit.options.name}" cannot count it: add it to prices_file, or set unknown_models: allow`;
    return deny("unknown_model", { code: "policy.forbidden", message }, { model: named });
  }

  #countUnknown(model: string): void {
    const name = model.slice(0, 128);
    const known = this.#unknown.get(name) ?? 0;
    this.#unknown.set(name, known + 1);
    this.#deps.count("unknown_model");
    if (known === 0) this.#deps.log.warn({ model: name }, "budgets: the model has no price");
  }
}
