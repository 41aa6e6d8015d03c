/** How much was asked, how often it failed, how long it took and how many tokens it used, by minute, for charts. */
import { BoundedMap, ownText } from "../bounded-map.ts";
import type { Clock } from "../pipeline/plugin.ts";
import type { SessionEvent } from "./event.ts";

/** Sums over some messages. Zero counts but `requests` are left out, as in the Go program. */
export interface UsageCounts {
  readonly requests: number;
  readonly errors?: number;
  /** Those of the errors that were refused here, by a plugin or by a limit. */
  readonly denied?: number;
  readonly tokens?: number;
  /** Millionths of a US dollar, where a plugin published what a message cost. */
  readonly costMicros?: number;
  /** Messages whose cost is known. */
  readonly pricedRequests?: number;
  /** Tokens that were not sent, about, where a plugin published how many a message was shortened by. */
  readonly tokensSaved?: number;
}

/** One stretch of time. */
export interface UsageBucket extends UsageCounts {
  /** RFC 3339; the beginning. */
  readonly at: string;
  readonly latMeanMs?: number;
  readonly latStdDevMs?: number;
  readonly series?: Readonly<Record<string, UsageCounts>>;
}

/** By what a chart may be divided. `method` is the model of an inference. */
export const usageGroups = ["none", "method", "status", "plugin", "host"] as const;

/** One of {@link usageGroups}. */
export type UsageGroup = (typeof usageGroups)[number];

/** What a chart shows. Milliseconds; whole minutes. */
export interface UsageQuery {
  readonly windowMs: number;
  readonly resolutionMs: number;
  readonly session: string;
  readonly group: UsageGroup;
}

/** Width of the buckets that are kept. */
export const usageBucketMs = 60_000;
/** How far back they reach. */
export const maxUsageWindowMs = 360 * usageBucketMs;

const maxBuckets = maxUsageWindowMs / usageBucketMs;
const maxSessions = 64;
const maxLabels = 64;
const otherLabel = "other";

class Sum {
  requests = 0;
  errors = 0;
  denied = 0;
  tokens = 0;
  costMicros = 0;
  pricedRequests = 0;
  tokensSaved = 0;

  add(one: Readonly<Sum>): void {
    this.requests += one.requests;
    this.errors += one.errors;
    this.denied += one.denied;
    this.tokens += one.tokens;
    this.costMicros += one.costMicros;
    this.pricedRequests += one.pricedRequests;
    this.tokensSaved += one.tokensSaved;
  }

  get counts(): UsageCounts {
    const { requests, errors, denied, tokens, costMicros, pricedRequests, tokensSaved } = this;
    return {
      requests,
      ...(errors > 0 ? { errors } : {}),
      ...(denied > 0 ? { denied } : {}),
      ...(tokens > 0 ? { tokens } : {}),
      ...(costMicros > 0 ? { costMicros } : {}),
      ...(pricedRequests > 0 ? { pricedRequests } : {}),
      ...(tokensSaved > 0 ? { tokensSaved } : {}),
    };
  }
}

type Labels = Map<string, Sum>;

class Bucket {
  readonly total = new Sum();
  timed = 0;
  millis = 0;
  squares = 0;
  readonly labels: Readonly<Record<Exclude<UsageGroup, "none">, Labels>> = {
    method: new Map(),
    status: new Map(),
    plugin: new Map(),
    host: new Map(),
  };

  merge(other: Bucket): void {
    this.total.add(other.total);
    this.timed += other.timed;
    this.millis += other.millis;
    this.squares += other.squares;
    for (const group of ["method", "status", "plugin", "host"] as const) {
      for (const [label, sum] of other.labels[group]) count(this.labels[group], label, sum);
    }
  }

  view(at: number, group: UsageGroup): UsageBucket {
    const mean = this.timed === 0 ? 0 : this.millis / this.timed;
    const variance = this.timed === 0 ? 0 : Math.max(0, this.squares / this.timed - mean * mean);
    const labels = group === "none" ? undefined : this.labels[group];
    return {
      at: new Date(at).toISOString(),
      ...this.total.counts,
      ...(mean > 0 ? { latMeanMs: mean } : {}),
      ...(variance > 0 ? { latStdDevMs: Math.sqrt(variance) } : {}),
      ...(labels === undefined || labels.size === 0
        ? {}
        : { series: Object.fromEntries([...labels].map(([label, sum]) => [label, sum.counts])) }),
    };
  }
}

/** Buckets of the last six hours by the minute in which they began. */
type Minutes = Map<number, Bucket>;

/** Counts events as they are recorded; memory depends on minutes and labels, not on events. */
export class Usage {
  readonly #clock: Clock;
  readonly #all: Minutes = new Map();
  /** The session that was counted longest ago goes first. */
  readonly #bySession = new BoundedMap<string, Minutes>(maxSessions);

  #lastAt = "";
  #lastMinute = 0;
  #last: { readonly session: string; readonly minutes: Minutes } | undefined;

  constructor(clock: Clock = Date) {
    this.#clock = clock;
  }

  /** Counts responses and refusals; a request alone has neither status nor duration. */
  record(event: SessionEvent): void {
    if (event.phase === "request") return;
    const minute = this.#minuteOf(event.at);
    const one = sumOf(event);
    fold(bucketOf(this.#all, minute), event, one);
    fold(bucketOf(this.#minutesOf(event.sessionId), minute), event, one);
  }

  /** Events of one millisecond share their text. */
  #minuteOf(at: string): number {
    if (at !== this.#lastAt) {
      this.#lastAt = at;
      this.#lastMinute = Math.floor(Date.parse(at) / usageBucketMs);
    }
    return this.#lastMinute;
  }

  #minutesOf(session: string): Minutes {
    if (this.#last?.session === session) return this.#last.minutes;
    const minutes: Minutes = this.#bySession.get(session) ?? new Map<number, Bucket>();
    this.#bySession.renew(session, minutes);
    this.#last = { session, minutes };
    return minutes;
  }

  /** Every bucket of the window, idle ones too, oldest first; the last one is still filling. */
  snapshot(query: UsageQuery): {
    readonly buckets: readonly UsageBucket[];
    readonly totals: UsageCounts;
    readonly priced: boolean;
  } {
    const { windowMs, resolutionMs, session, group } = query;
    const minutes = session === "" ? this.#all : this.#bySession.get(session);
    const last = Math.floor(this.#clock.now() / usageBucketMs);
    const first = last - windowMs / usageBucketMs + 1;
    const step = resolutionMs / usageBucketMs;
    const total = new Sum();
    const buckets: UsageBucket[] = [];
    for (let start = first; start <= last; start += step) {
      const wide = new Bucket();
      for (let minute = start; minute < start + step && minute <= last; minute += 1) {
        const found = minutes?.get(minute);
        if (found !== undefined) wide.merge(found);
      }
      total.add(wide.total);
      buckets.push(wide.view(start * usageBucketMs, group));
    }
    return { buckets, totals: total.counts, priced: total.pricedRequests > 0 };
  }
}

function bucketOf(minutes: Minutes, minute: number): Bucket {
  const known = minutes.get(minute);
  if (known !== undefined) return known;
  const bucket = new Bucket();
  minutes.set(minute, bucket);
  for (const oldest of minutes.keys()) {
    if (oldest > minute - maxBuckets && minutes.size <= maxBuckets) break;
    minutes.delete(oldest);
  }
  return bucket;
}

function sumOf(event: SessionEvent): Sum {
  const sum = new Sum();
  sum.requests = 1;
  const { statusCode = 0, phase, inference, plugins } = event;
  if (phase === "denied" || statusCode >= 400 || event.error !== undefined) sum.errors = 1;
  if (phase === "denied" || event.error?.kind === "policy") sum.denied = 1;
  sum.tokens = numberOf(inference, "totalTokens");
  for (const name in plugins) {
    sum.tokensSaved += numberOf(plugins[name], "tokensSaved");
    const cost = numberOf(plugins[name], "costMicros");
    if (cost === 0) continue;
    sum.costMicros += cost;
    sum.pricedRequests = 1;
  }
  return sum;
}

function fold(bucket: Bucket, event: SessionEvent, one: Sum): void {
  bucket.total.add(one);
  const { durationMs = 0, statusCode, inference, invocations } = event;
  if (durationMs > 0) {
    bucket.timed += 1;
    bucket.millis += durationMs;
    bucket.squares += durationMs * durationMs;
  }
  count(bucket.labels.host, event.host, one);
  count(
    bucket.labels.status,
    statusCode === undefined || statusCode === 0 ? event.phase : String(statusCode),
    one,
  );
  if (typeof inference === "object" && inference !== null && "model" in inference) {
    if (typeof inference.model === "string") count(bucket.labels.method, inference.model, one);
  }
  if (invocations === undefined) return;
  // A message counts once for every plugin that took part in it.
  const seen = new Set<string>();
  for (const steps of [invocations.inbound, invocations.outbound]) {
    for (const { plugin } of steps ?? []) seen.add(plugin);
  }
  for (const plugin of seen) count(bucket.labels.plugin, plugin, one);
}

/** Hosts and models are strangers' words: their number has a bound. */
function count(labels: Labels, label: string, one: Readonly<Sum>): void {
  const known = labels.get(label);
  if (known !== undefined) {
    known.add(one);
    return;
  }
  const key = labels.size < maxLabels ? ownText(label.slice(0, 256)) : otherLabel;
  const sum = labels.get(key) ?? new Sum();
  sum.add(one);
  labels.set(key, sum);
}

function numberOf(value: unknown, key: string): number {
  if (typeof value !== "object" || value === null) return 0;
  const found = (value as Readonly<Record<string, unknown>>)[key];
  return typeof found === "number" && Number.isFinite(found) && found > 0 ? found : 0;
}
