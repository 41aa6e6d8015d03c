/** What tokens of language models cost: a dated table in a file, which users replace by their own. */
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { BoundedMap } from "../../bounded-map.ts";
import { WatchedFile } from "../../files/watched-file.ts";
import type { Clock, PluginDeps } from "../../pipeline/plugin.ts";
import type { InferenceUsage } from "../../protocols/inference-view.ts";
import { readYaml } from "../../yaml/read.ts";

const dollars = z.number().min(0).max(1_000_000);

const priceSchema = z.strictObject({
  input: dollars,
  output: dollars.default(0),
  cache_read: dollars.optional(),
  cache_write: dollars.optional(),
});

const tableSchema = z.strictObject({
  as_of: z.iso.date(),
  models: z.record(z.string().min(1), priceSchema),
});

type Price = z.output<typeof priceSchema>;

/** The table that comes with the program. */
export const ownPrices = fileURLToPath(
  new URL("../../../config/prices/models.yaml", import.meta.url),
);

/** Billionths of a US dollar: a token of the cheapest model costs five of them. */
export const nanosPerDollar = 1_000_000_000;
const tokensPerPrice = 1_000_000;
const maxRemembered = 1_000;
const staleAfterMs = 365 * 86_400_000;

/** What may follow the name of a model without being another one: dates and versions, each to be read in one way only. */
const version =
  /^(?:[-@:](?:latest|\d{4}-\d{2}-\d{2}|\d{6,8}|v\d+(?::(?:\d{1,2}|\d{4,5}|\d{9,}))?|\d{3}))+$/;
/** Where a model is served says nothing of what it is. */
const place =
  /^(?:.*\/)?(?:(?:us|eu|apac|global)\.)?(?:(?:anthropic|amazon|meta|mistral|cohere)\.)?/;

/** The prices of one version of the file. */
export class PriceTable {
  readonly asOf: string;
  readonly #prices: ReadonlyMap<string, Price>;
  readonly #found = new BoundedMap<string, Price | undefined>(maxRemembered);

  constructor(text: string, file: string) {
    const { as_of: asOf, models } = readYaml(tableSchema, { text, file });
    this.asOf = asOf;
    this.#prices = new Map(
      Object.entries(models).map(([name, price]) => [name.toLowerCase(), price]),
    );
  }

  /** Whether the model has a price. */
  knows(model: string): boolean {
    return this.#priceOf(model) !== undefined;
  }

  /** What so many tokens of a model cost; undefined where its price is not known. */
  nanosOf(model: string, usage: InferenceUsage): number | undefined {
    const price = this.#priceOf(model);
    if (price === undefined) return undefined;
    const { promptTokens = 0, completionTokens = 0 } = usage;
    const { cacheReadTokens: read = 0, cacheWriteTokens: written = 0 } = usage;
    const plain = Math.max(0, promptTokens - read - written);
    const sum =
      plain * price.input +
      read * (price.cache_read ?? price.input) +
      written * (price.cache_write ?? price.input) +
      completionTokens * price.output;
    return Math.round((sum * nanosPerDollar) / tokensPerPrice);
  }

  #priceOf(model: string): Price | undefined {
    return this.#found.getOrMake(model, () => {
      const name = model.toLowerCase();
      return this.#longest(name) ?? this.#longest(name.replace(place, ""));
    });
  }

  #longest(name: string): Price | undefined {
    for (let end = name.length; end > 0; end -= 1) {
      const price = this.#prices.get(name.slice(0, end));
      if (price !== undefined && (end === name.length || version.test(name.slice(end)))) {
        return price;
      }
    }
    return undefined;
  }
}

/** The table in use: of the file of whoever set one, which is read again when it changes. */
export class Prices {
  #file: WatchedFile<PriceTable> | undefined;

  /** Undefined where nobody asked for prices, and where the file has never been good. */
  get table(): PriceTable | undefined {
    return this.#file?.current();
  }

  /** Takes the prices of this file from now on; returns what is wrong with it. */
  use(path: string, { clock, log }: Pick<PluginDeps, "clock" | "log">): string | undefined {
    const file = new WatchedFile({
      path,
      clock,
      parse: (text) => new PriceTable(text, path),
      onProblem: (problem) => log.warn({ prices: path }, problem),
    });
    const table = file.current();
    if (table === undefined) return file.problem ?? "cannot be read";
    this.#file = file;
    if (isStale(table, clock)) {
      log.warn({ prices: path, asOf: table.asOf }, "the prices of models are more than a year old");
    }
    return undefined;
  }
}

function isStale({ asOf }: PriceTable, clock: Clock): boolean {
  return clock.now() - Date.parse(asOf) > staleAfterMs;
}

/** The prices of the process: a budget sets them, and the parser counts what calls cost with them. */
export function sharedPrices({ carry }: Pick<PluginDeps, "carry">): Prices {
  return carry("prices", () => new Prices());
}
