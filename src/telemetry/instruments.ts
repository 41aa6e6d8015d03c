/**
 * Counters and histograms that cost a field increment on the hot path and meet prom-client only at the scrape.
 *
 * prom-client hashes and validates labels at every observation, even through a cached child (0.4 µs, several per
 * request); these hold the numbers themselves and hand them over when somebody asks.
 */
import type { counters, histograms, InstrumentRow, ValuesOf } from "./catalogue.ts";
import { Counter, type Histogram, type Registry } from "./prom-client.ts";

/** What an instrument is called and which labels it has. */
export interface InstrumentFacts {
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
  /** Most children; what is more shares one. Without it labels come from closed sets. */
  readonly maxSeries?: number;
}

/** The value of a label; in /metrics it is text. */
export type Attribute = string | number | boolean;

type Labels = Record<string, Attribute>;

/** What was added to one child: the values of its labels, none for what has no place of its own. */
export type Added<T> = readonly [values: readonly Attribute[] | undefined, more: T];

/** What was observed more: by bucket, and the sum. */
export type Observed = readonly [counts: readonly number[], sum: number];

const overflow = "otel.metric.overflow";

interface Branch<T> {
  readonly children: Map<Attribute, Branch<T>>;
  leaf: T | undefined;
}

/** Finds the child of an instrument by its label values, and makes it the first time. */
class Family<T> {
  readonly children: T[] = [];
  readonly #root: Branch<T> = { children: new Map(), leaf: undefined };
  readonly #names: readonly string[];
  readonly #maxSeries: number;
  readonly #make: (labels: Labels) => T;
  #overflow: T | undefined;

  constructor({ labels, maxSeries }: InstrumentFacts, make: (labels: Labels) => T) {
    this.#names = labels;
    this.#maxSeries = maxSeries ?? Number.POSITIVE_INFINITY;
    this.#make = make;
    if (labels.length === 0) this.find([]);
  }

  /** One Map look-up per label: no string is built. */
  find(values: readonly Attribute[]): T {
    let branch = this.#root;
    for (const value of values) {
      let next = branch.children.get(value);
      if (next === undefined) {
        if (this.children.length >= this.#maxSeries - 1) return this.#shared();
        next = { children: new Map(), leaf: undefined };
        branch.children.set(value, next);
      }
      branch = next;
    }
    if (branch.leaf === undefined) {
      const labels: Labels = {};
      for (const [index, name] of this.#names.entries()) labels[name] = values[index] ?? "";
      branch.leaf = this.#make(labels);
      this.children.push(branch.leaf);
    }
    return branch.leaf;
  }

  /** The child that {@link valuesOf} gives these values for. */
  at(values: readonly Attribute[] | undefined): T {
    return values === undefined ? this.#shared() : this.find(values);
  }

  /** The child of what has no place of its own, under the name that OpenTelemetry gives it. */
  #shared(): T {
    if (this.#overflow === undefined) {
      this.#overflow = this.#make({ [overflow]: true });
      this.children.push(this.#overflow);
    }
    return this.#overflow;
  }
}

function valuesOf(labels: Labels): readonly Attribute[] | undefined {
  return overflow in labels ? undefined : Object.values(labels);
}

/** One number of a {@link Tally}; add to `value` directly. */
export interface Cell {
  readonly labels: Labels;
  value: number;
}

type Rows = Readonly<Record<string, InstrumentRow>>;

/** The counters of a table. */
export type Tallies<R extends Rows> = {
  readonly [Name in keyof R]: Tally<ValuesOf<R[Name]["labels"]>>;
};

/** Its histograms. */
export type Distributions<R extends Rows> = {
  readonly [Name in keyof R]: Distribution<ValuesOf<R[Name]["labels"]>>;
};

function factsOf(name: string, { help, labels }: InstrumentRow): InstrumentFacts {
  return { name: `authbridge_${name}`, help, labels: labels.map(([label]) => label) };
}

/** The children that are there before anything was counted. */
function zerosOf({ labels, zeros = [] }: InstrumentRow): readonly (readonly string[])[] {
  if (zeros !== "all") return zeros;
  return labels.reduce<readonly (readonly string[])[]>(
    (rows, [, values = []]) => rows.flatMap((row) => values.map((value) => [...row, value])),
    [[]],
  );
}

/** A counter whose children are plain numbers. */
export class Tally<Values extends readonly Attribute[] = readonly Attribute[]> {
  readonly #family: Family<Cell>;
  /** What {@link changes} has given of each child. */
  readonly #given = new Map<Cell, number>();

  /** Those of a table, by their names there. */
  static all<R extends Rows>(registry: Registry, rows: R): Tallies<R> {
    const made = Object.entries(rows).map(([name, row]) => {
      const tally = new Tally(registry, factsOf(name, row));
      for (const values of zerosOf(row)) tally.of(...values);
      return [name, tally] as const;
    });
    return Object.fromEntries(made) as unknown as Tallies<R>;
  }

  constructor(registry: Registry, facts: InstrumentFacts) {
    const family = new Family<Cell>(facts, (labels) => ({ labels, value: 0 }));
    this.#family = family;
    const counter: Counter = new Counter({
      name: facts.name,
      help: facts.help,
      labelNames: facts.labels,
      registers: [registry],
      collect(): void {
        counter.reset();
        for (const cell of family.children)
          counter.inc(cell.labels as Record<string, string>, cell.value);
      },
    });
  }

  /** The child for these label values, in the order of the declared labels. */
  of(...values: Values): Cell {
    return this.#family.find(values);
  }

  /** What was counted since this was asked last, for the same instrument of another thread. */
  changes(): Added<number>[] {
    return this.#family.children.flatMap((cell): Added<number>[] => {
      const more = cell.value - (this.#given.get(cell) ?? 0);
      if (more === 0) return [];
      this.#given.set(cell, cell.value);
      return [[valuesOf(cell.labels), more]];
    });
  }

  /** Adds what another thread has counted. */
  add(changes: readonly Added<number>[]): void {
    for (const [values, more] of changes) this.#family.at(values).value += more;
  }

  /** Counts by the value of the first label; undefined where nothing was counted. */
  totals(): Readonly<Record<string, number>> | undefined {
    const { children } = this.#family;
    if (children.length === 0) return undefined;
    return Object.fromEntries(
      children.map(({ labels, value }) => [String(Object.values(labels)[0]), value]),
    );
  }
}

/** One child of a {@link Distribution}. */
export class Buckets {
  readonly labels: Labels;
  readonly counts: Float64Array;
  sum = 0;
  readonly #bounds: readonly number[];
  #given: { readonly counts: Float64Array; sum: number } | undefined;

  constructor(labels: Labels, bounds: readonly number[]) {
    this.labels = labels;
    this.#bounds = bounds;
    this.counts = new Float64Array(bounds.length + 1);
  }

  /** What was observed since this was asked last; undefined for nothing. */
  changes(): Observed | undefined {
    const given = (this.#given ??= { counts: new Float64Array(this.counts.length), sum: 0 });
    const more = [...this.counts].map((count, index) => count - (given.counts[index] ?? 0));
    if (more.every((count) => count === 0)) return undefined;
    const sum = this.sum - given.sum;
    given.counts.set(this.counts);
    given.sum = this.sum;
    return [more, sum];
  }

  /** Adds what another thread has observed. */
  add([counts, sum]: Observed): void {
    for (const [index, count] of counts.entries())
      this.counts[index] = (this.counts[index] ?? 0) + count;
    this.sum += sum;
  }

  observe(value: number): void {
    // A clock that went backwards must not make a sum fall: counters only grow.
    const counted = value > 0 ? value : 0;
    let index = 0;
    while (index < this.#bounds.length && counted > (this.#bounds[index] ?? 0)) index += 1;
    this.counts[index] = (this.counts[index] ?? 0) + 1;
    this.sum += counted;
  }
}

interface Sample {
  readonly metricName: string;
  readonly labels: Labels;
  readonly value: number;
}

/** A histogram whose children are plain arrays. */
export class Distribution<Values extends readonly Attribute[] = readonly Attribute[]> {
  readonly name: string;
  readonly help: string;
  readonly type = "histogram";
  readonly aggregator = "sum";
  readonly #bounds: readonly number[];
  readonly #family: Family<Buckets>;

  /** Those of a table, by their names there. */
  static all<R extends Rows>(registry: Registry, rows: R): Distributions<R> {
    const made = Object.entries(rows).map(([name, row]) => {
      const facts = { ...factsOf(name, row), bounds: row.bounds ?? [] };
      return [name, new Distribution(registry, facts)] as const;
    });
    return Object.fromEntries(made) as unknown as Distributions<R>;
  }

  constructor(registry: Registry, facts: InstrumentFacts & { readonly bounds: readonly number[] }) {
    this.name = facts.name;
    this.help = facts.help;
    this.#bounds = facts.bounds;
    this.#family = new Family(facts, (labels) => new Buckets(labels, facts.bounds));
    // A registry asks its metrics for name, help, type and values through get(), and for nothing else.
    registry.registerMetric(this as unknown as Histogram);
  }

  /** The child for these label values, in the order of the declared labels. */
  of(...values: Values): Buckets {
    return this.#family.find(values);
  }

  /** What was observed since this was asked last, for the same instrument of another thread. */
  changes(): Added<Observed>[] {
    return this.#family.children.flatMap((child): Added<Observed>[] => {
      const more = child.changes();
      return more === undefined ? [] : [[valuesOf(child.labels), more]];
    });
  }

  /** Adds what another thread has observed. */
  add(changes: readonly Added<Observed>[]): void {
    for (const [values, more] of changes) this.#family.at(values).add(more);
  }

  /** Called by the registry at the scrape. */
  get(): Promise<object> {
    const values = this.#family.children.flatMap((child) => this.#samples(child));
    const { name, help, type, aggregator } = this;
    return Promise.resolve({ name, help, type, aggregator, values });
  }

  #samples(child: Buckets): Sample[] {
    const samples: Sample[] = [];
    let total = 0;
    for (const [index, count] of child.counts.entries()) {
      total += count;
      const le = this.#bounds[index] ?? "+Inf";
      samples.push({
        metricName: `${this.name}_bucket`,
        labels: { ...child.labels, le },
        value: total,
      });
    }
    samples.push({ metricName: `${this.name}_sum`, labels: child.labels, value: child.sum });
    samples.push({ metricName: `${this.name}_count`, labels: child.labels, value: total });
    return samples;
  }
}

/** Everything that is counted or measured. */
export interface Instruments {
  readonly counters: Tallies<typeof counters>;
  readonly histograms: Distributions<typeof histograms>;
}
