/** Observed refusals, put together by host, port and executable in a bounded place, to learn a policy from. */
import { ownText } from "../bounded-map.ts";
import { unresolvedBinary } from "./binary-matcher.ts";
import type { DecisionCode } from "./decision.ts";
import type { InspectedProtocol } from "./rule.ts";

/** One refusal (or audited violation). */
export interface Denial {
  readonly host: string;
  readonly port: number;
  readonly binary?: string | undefined;
  readonly code: DecisionCode;
  /** Entry and rule of the decision that refused. */
  readonly entry?: string | undefined;
  readonly rule?: string | undefined;
  /** How the endpoint that refused judges requests. */
  readonly protocol?: InspectedProtocol | undefined;
  readonly method?: string | undefined;
  /** Canonical path without query: queries carry secrets. */
  readonly path?: string | undefined;
}

/** A refused request of an aggregate. */
export interface RequestSample {
  readonly method: string;
  readonly path: string;
  readonly code: DecisionCode;
  readonly entry?: string | undefined;
  readonly rule?: string | undefined;
  readonly protocol?: InspectedProtocol | undefined;
}

/** Refusals of one executable towards one host and port. */
export interface DenialSummary {
  readonly host: string;
  readonly port: number;
  readonly binary: string;
  readonly count: number;
  /** Milliseconds since the epoch. */
  readonly firstSeen: number;
  readonly lastSeen: number;
  readonly code: DecisionCode;
  readonly entry?: string | undefined;
  readonly samples: readonly RequestSample[];
}

interface Kept {
  readonly host: string;
  readonly port: number;
  readonly binary: string;
  readonly firstSeen: number;
  readonly samples: Map<string, RequestSample>;
  count: number;
  lastSeen: number;
  code: DecisionCode;
  entry: string | undefined;
}

/** Bounds of an aggregate. */
export interface AggregateOptions {
  readonly maxSummaries?: number;
  readonly maxSamples?: number;
}

const maxPathLength = 512;

/** Counts refusals; the summary that was quiet for longest makes room for a new one. */
export class DenialAggregate {
  readonly #maxSummaries: number;
  readonly #maxSamples: number;
  readonly #kept = new Map<string, Kept>();
  #dropped = 0;

  constructor(options: AggregateOptions = {}) {
    this.#maxSummaries = options.maxSummaries ?? 512;
    this.#maxSamples = options.maxSamples ?? 20;
  }

  /** Summaries that had to make room. */
  get dropped(): number {
    return this.#dropped;
  }

  record(denial: Denial, now: number): void {
    const binary =
      denial.binary === undefined || denial.binary === "" ? unresolvedBinary : denial.binary;
    const key = `${denial.host}\0${denial.port}\0${binary}`;
    const kept = this.#kept.get(key) ?? this.#open(denial, binary, now);
    kept.count += 1;
    kept.lastSeen = now;
    kept.code = denial.code;
    kept.entry = denial.entry;
    // Moved to the end, so that the first key is always the quietest.
    this.#kept.delete(key);
    this.#kept.set(key, kept);
    this.#sample(kept, denial);
  }

  summaries(): readonly DenialSummary[] {
    return [...this.#kept.values()].map(({ samples, ...kept }) => ({
      ...kept,
      samples: [...samples.values()],
    }));
  }

  clear(): void {
    this.#kept.clear();
    this.#dropped = 0;
  }

  #open({ host, port, code }: Denial, binary: string, now: number): Kept {
    const [quietest] = this.#kept.keys();
    if (this.#kept.size >= this.#maxSummaries && quietest !== undefined) {
      this.#kept.delete(quietest);
      this.#dropped += 1;
    }
    const times = { firstSeen: now, lastSeen: now };
    return { host, port, binary, ...times, samples: new Map(), count: 0, code, entry: undefined };
  }

  #sample(kept: Kept, { method, path, code, entry, rule, protocol }: Denial): void {
    if (method === undefined || path === undefined || path.length > maxPathLength) return;
    const key = `${method} ${path}`;
    if (kept.samples.size >= this.#maxSamples && !kept.samples.has(key)) return;
    // Not with the whole head that they were cut out of.
    const asked = { method: ownText(method), path: ownText(path) };
    kept.samples.set(ownText(key), { ...asked, code, entry, rule, protocol });
  }
}
