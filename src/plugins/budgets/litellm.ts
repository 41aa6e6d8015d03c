/** litellm-budget-track: the Go program's spelling of one budget of money a day, with its ledger in a file. */
import { z } from "zod";
import { readSmallFile } from "../../files/watched-file.ts";
import { writeAtomically } from "../../files/atomic-file.ts";
import { isObject } from "../../http/json-access.ts";
import { messageOf } from "../../errors.ts";
import {
  definePlugin,
  type Denial,
  PluginConfigError,
  type PluginDeps,
} from "../../pipeline/plugin.ts";
import { words } from "../config-values.ts";
import { mostDollars, nanosPerDollar, ownPrices, sharedPrices } from "../parsers/prices.ts";
import type { Exceeded } from "./entry.ts";
import type { LimitOptions } from "./limit.ts";
import { BudgetPlugin } from "./plugin.ts";

const litellmConfig = z.strictObject({
  spend_file: words().describe(
    "The ledger of today, in JSON: date, total_spend, total_calls. Read at the start, written after every call that cost something.",
  ),
  max_budget: z.number().positive().max(mostDollars).describe("US dollars a day, in UTC."),
  prices_file: words()
    .optional()
    .describe(
      "Prices of models, for calls of which no gateway says what they cost. Default: the program's own table.",
    ),
});

type LitellmConfig = z.output<typeof litellmConfig>;

/** The definition that a pipeline names. */
export const litellmBudgetTrack = definePlugin<LitellmConfig>({
  name: "litellm-budget-track",
  description: "Refuses everything when calls of language models have cost so much today (budgets)",
  config: litellmConfig,
  stages: ["connect", "request"],
  create: (config, deps) => makePlugin(config, deps),
});

const limitName = "daily-spend";

function makePlugin(config: LitellmConfig, deps: PluginDeps): BudgetPlugin {
  const { spend_file: path, max_budget: budget, prices_file: pricesFile } = config;
  const prices = sharedPrices(deps);
  const problem = prices.use(pricesFile ?? ownPrices, deps);
  if (problem !== undefined) {
    throw new PluginConfigError([{ path: ["prices_file"], message: problem }]);
  }
  const name = `spend ledger ${path}`;
  const ledger = deps.held(name, ["add", "spent"], () => new SpendLedger(path, deps));
  const limit: LimitOptions = {
    name: limitName,
    unit: "cost",
    limit: Math.round(budget * nanosPerDollar),
    window: "day",
    by: [],
    isHard: true,
    hosts: [],
    models: [],
    refusesAll: true,
    skipsUnknown: false,
    forgetAfterMs: undefined,
  };
  return new BudgetPlugin(
    {
      limits: [limit],
      store: deps.state.store,
      storeName: "state",
      whenAway: "refuse",
      waitMs: 10_000,
      answerTokens: 4_096,
      answerBytes: 0,
      prices,
      refusesUnknownModels: false,
      needsView: false,
      denial: (exceeded) => denial(exceeded, budget),
      onTaken: (_limit, nanos) => {
        const adding = ledger.add(nanos);
        if (adding instanceof Promise) adding.catch(() => deps.count("state_away"));
      },
      spentBefore: () => ledger.spent(),
    },
    deps,
  );
}

function denial({ used }: Exceeded, budget: number): Denial {
  const spend = (used / nanosPerDollar).toFixed(4);
  return {
    code: "budget.exceeded",
    message: `Cortex ExceededTokenBudget: daily spend $${spend} exceeds budget $${budget.toFixed(2)}. Reset at midnight UTC.`,
  };
}

/** The file that the Go program and its tools read. The counter of the budget is in the store of `state`. */
class SpendLedger {
  readonly #path: string;
  readonly #deps: Pick<PluginDeps, "clock" | "log">;
  #date = "";
  #nanos = 0;
  #calls = 0;
  #writing: Promise<void> | undefined;
  #isDirty = false;
  #hasFailed = false;

  constructor(path: string, deps: Pick<PluginDeps, "clock" | "log">) {
    this.#path = path;
    this.#deps = deps;
    this.#read();
  }

  /** Of today. */
  spent(): number {
    this.#turn();
    return this.#nanos;
  }

  add(nanos: number): void {
    if (nanos <= 0) return;
    this.#turn();
    this.#nanos += nanos;
    this.#calls += 1;
    this.#isDirty = true;
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  }

  async close(): Promise<void> {
    await this.#writing;
  }

  #today(): string {
    return new Date(this.#deps.clock.now()).toISOString().slice(0, 10);
  }

  #turn(): void {
    const today = this.#today();
    if (this.#date === today) return;
    this.#date = today;
    this.#nanos = 0;
    this.#calls = 0;
  }

  #read(): void {
    let text: string;
    try {
      text = readSmallFile(this.#path);
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return;
      throw badLedger(messageOf(error));
    }
    let ledger: unknown;
    try {
      ledger = JSON.parse(text);
    } catch {
      throw badLedger("is no ledger; move the file away to begin anew");
    }
    if (!isObject(ledger)) throw badLedger("is no ledger; move the file away to begin anew");
    const { date, total_spend: spend, total_calls: calls } = ledger;
    if (date !== this.#today() || typeof spend !== "number" || !(spend >= 0)) return;
    this.#date = date;
    this.#nanos = Math.round(spend * nanosPerDollar);
    this.#calls = typeof calls === "number" ? calls : 0;
  }

  async #write(): Promise<void> {
    while (this.#isDirty) {
      this.#isDirty = false;
      const ledger = {
        date: this.#date,
        total_spend: this.#nanos / nanosPerDollar,
        total_calls: this.#calls,
      };
      try {
        await writeAtomically(this.#path, `${JSON.stringify(ledger, null, 2)}\n`, 0o644);
        this.#hasFailed = false;
      } catch (error) {
        if (this.#hasFailed) continue;
        this.#hasFailed = true;
        const why = messageOf(error);
        this.#deps.log.error({ file: this.#path, error: why }, "spend_file cannot be written");
      }
    }
  }
}

function badLedger(message: string): PluginConfigError {
  return new PluginConfigError([{ path: ["spend_file"], message }]);
}
