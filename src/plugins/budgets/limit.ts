/** One limit: what it is for, what it counts, and under which key. */
import { hash } from "node:crypto";
import { BoundedMap } from "../../bounded-map.ts";
import { HostMatcher } from "../../pattern/host-pattern.ts";
import type { RequestContext, SessionReader } from "../../pipeline/plugin.ts";
import { callerOf } from "../../pipeline/flow.ts";
import { Domains } from "./domains.ts";
import { Calendar, type Window } from "./window.ts";

/** What a limit may be divided by. */
export const dimensions = ["caller", "subject", "session", "model", "route", "domain"] as const;
/** Units of what is counted the first time only: hosts, names, and bits of names and targets. */
export const distinctUnits = ["hosts", "subdomains", "name_entropy", "url_entropy"] as const;
/** Units of the file; calls are those of language models. */
export const units = [
  "tokens",
  "cost",
  "calls",
  "requests",
  "tool_calls",
  "bytes",
  "bytes_up",
  "bytes_down",
  ...distinctUnits,
] as const;

/** One of {@link dimensions}. */
export type Dimension = (typeof dimensions)[number];
/** One of {@link units}, or the time since the first message. */
export type Unit = (typeof units)[number] | "seconds";

/** A limit in terms of the engine. */
export interface LimitOptions {
  readonly name: string;
  readonly unit: Unit;
  /** Tokens, billionths of a dollar, bits, seconds, or how many. */
  readonly limit: number;
  readonly window: Window;
  readonly by: readonly Dimension[];
  readonly isHard: boolean;
  /** Where it would refuse, a person is asked. */
  readonly asks?: boolean;
  /** Only these destinations; all where it is empty. */
  readonly hosts: readonly string[];
  /** Only these models, as patterns with `*`; all where it is empty. */
  readonly models: readonly string[];
  /** When it is used up, messages that it does not count are refused as well. */
  readonly refusesAll: boolean;
  /** What is not known (no session, no subject) is not counted, in place of being counted together. */
  readonly skipsUnknown: boolean;
  /** How long a lifetime is remembered after its last use. */
  readonly forgetAfterMs: number | undefined;
  /** The share of what is left that a process takes from the store at once; absent: each message asks. */
  readonly lease?: number | undefined;
}

/** Where a message is counted. */
export interface Place {
  readonly key: string;
  readonly ttlMs: number | undefined;
  /** When it begins anew; infinite for a lifetime. */
  readonly until: number;
  /** The values that it is divided by, for operators. */
  readonly values: readonly string[];
}

/** One of {@link distinctUnits}. */
export type DistinctUnit = (typeof distinctUnits)[number];

const distinct: ReadonlySet<string> = new Set(distinctUnits);
/** Those that the connection alone decides, before its name is looked up. */
const ofConnections: ReadonlySet<string> = new Set(["hosts", "subdomains", "name_entropy"]);

/** Whether the unit counts each thing once. */
export function isDistinct(unit: Unit): unit is DistinctUnit {
  return distinct.has(unit);
}

/** Whether the unit is counted while it goes by. */
export function isFlow(unit: Unit): unit is "bytes_up" | "bytes_down" {
  return unit === "bytes_up" || unit === "bytes_down";
}

/** Whether no message takes more than there is: what it takes is known before. */
export function isStrict(unit: Unit): boolean {
  return isDistinct(unit) || isFlow(unit);
}

/** Whether a tunnel is counted whatever is in it. */
export function isOfConnections(unit: Unit): boolean {
  return unit === "bytes" || isFlow(unit) || ofConnections.has(unit);
}

const maxKeys = 10_000;
/** Clocks of replicas differ, and calls end after their window. */
const graceMs = 3_600_000;

/** One limit of an instance. */
export class Limit {
  readonly options: LimitOptions;
  readonly #hosts: HostMatcher | undefined;
  readonly #models: readonly RegExp[];
  readonly #calendar: Calendar;
  readonly #prefix: string;
  readonly #domains: Domains;
  readonly #digests = new BoundedMap<string, string>(maxKeys);

  /** `instance` divides instances; in a cluster all keys of one are in one place, so that they count in one step. */
  constructor(options: LimitOptions, instance: string) {
    this.options = options;
    this.#hosts = options.hosts.length === 0 ? undefined : new HostMatcher(options.hosts);
    this.#models = options.models.map(modelPattern);
    this.#calendar = new Calendar(options.window);
    this.#prefix = `budgets:{${instance}}:${options.name}:`;
    this.#domains = new Domains(options.hosts);
  }

  /** What the host stands under. */
  domainOf({ host, isAddress }: RequestContext["destination"]): string {
    return this.#domains.of(host, isAddress);
  }

  /** Whether the file names hosts, of which this is one. */
  namesHost(host: string): boolean {
    return this.#hosts?.matches(host) === true;
  }

  /** Whether it is asked about tunnels, too. */
  get isOfTunnels(): boolean {
    const { unit, refusesAll } = this.options;
    return isOfConnections(unit) || (refusesAll && unit !== "requests");
  }

  /** Whether some message to this host counts. */
  isFor(host: string): boolean {
    return this.#hosts?.matches(host) !== false;
  }

  /** Whether a person may be asked about a message to this host. */
  asksFor(host: string): boolean {
    return this.options.asks === true && this.isFor(host);
  }

  /** Whether the limit is for a message to this host, about this model. */
  covers(host: string, model: string | undefined): boolean {
    if (!this.isFor(host)) return false;
    if (this.#models.length === 0) return true;
    return model !== undefined && this.#models.some((pattern) => pattern.test(model));
  }

  /** Undefined where something that it is divided by is not known, and the file says that this is not counted. */
  placeOf(subject: Subject | undefined, now: number): Place | undefined {
    const { by, skipsUnknown, forgetAfterMs } = this.options;
    const values = by.map((dimension) =>
      dimension === "domain" && subject !== undefined
        ? this.domainOf(subject.destination)
        : subject?.valueOf(dimension),
    );
    if (skipsUnknown && values.includes(undefined)) return undefined;
    const known = values.map((value) => value ?? "");
    const { name, until } = this.#calendar.at(now);
    return {
      key: `${this.#prefix}${name}:${this.#digestOf(known)}`,
      ttlMs: until === Infinity ? forgetAfterMs : until - now + graceMs,
      until,
      values: known,
    };
  }

  /** Values are strangers' words of any length. */
  #digestOf(values: readonly string[]): string {
    if (values.length === 0) return "all";
    const text = values.length === 1 ? (values[0] ?? "") : JSON.stringify(values);
    return this.#digests.getOrMake(text, () => hash("sha256", text, "base64url").slice(0, 24));
  }
}

/** Of whom and of what a message is, each looked up when a limit asks. */
export class Subject {
  readonly #context: RequestContext;
  readonly #sessions: SessionReader | undefined;
  readonly #model: string | undefined;

  constructor(
    context: RequestContext,
    sessions: SessionReader | undefined,
    model: string | undefined,
  ) {
    this.#context = context;
    this.#sessions = sessions;
    this.#model = model;
  }

  get destination(): RequestContext["destination"] {
    return this.#context.destination;
  }

  valueOf(dimension: Dimension): string | undefined {
    const { flow, identity, destination, sessionId } = this.#context;
    switch (dimension) {
      case "caller":
        return callerOf(flow.client);
      case "subject":
        return identity?.subject ?? this.#sessions?.subjectOf(this.#context);
      case "session":
        return this.#sessions?.sessionOf(this.#context) ?? sessionId;
      case "model":
        return this.#model;
      case "route":
        return destination.authority;
      case "domain":
        return destination.host;
    }
  }
}

/** A star stands for any characters. */
function modelPattern(pattern: string): RegExp {
  const parts = pattern.split(/\*+/).map((part) => part.replaceAll(/[\\^$.|?+()[\]{}]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`, "is");
}
