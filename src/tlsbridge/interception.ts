/**
 * Which connections the bridge opens, and what it remembers of clients that would not let it.
 */

import { BoundedMap } from "../bounded-map.ts";

/** Ports that are bridged when the file names none. */
export const defaultBridgedPorts: readonly number[] = [443, 8443];

/** Compiled host patterns, as far as the bridge needs them. */
export interface HostMatcher {
  matches(host: string): boolean;
}

/** What becomes of a connection: opened, or passed through and why. */
export type InterceptionDecision =
  | { readonly action: "bridge" }
  | {
      readonly action: "tunnel";
      readonly reason: "port" | "passthrough" | "client-refused";
      /** On a port that is not bridged: the host is one of those that are passed through. */
      readonly isExempt?: true;
    };

/** Options of {@link Interception}. */
export interface InterceptionOptions {
  /** Replaces the default list, never adds to it. */
  readonly ports?: readonly number[];
  readonly passthroughHosts: HostMatcher;
  /** What a client gets that refused the leaf before: the leaf again, or a tunnel that nobody looks into. */
  readonly onFailure?: "refuse" | "tunnel";
  readonly refusalTtlMs?: number;
  readonly maxRefusals?: number;
  readonly now?: () => number;
}

/** What is remembered of a host whose leaf clients refused. */
export interface Refusal {
  readonly host: string;
  /** How often in a row, without a handshake that went through or a pause longer than the limit in between. */
  readonly count: number;
  /** Alert or other way in which the last client refused. */
  readonly how: string;
  readonly lastMs: number;
}

/**
 * Decides which connections are opened.
 *
 * With `onFailure: "refuse"` a remembered refusal never changes a decision: otherwise a client could switch the
 * inspection off by breaking one handshake. With `"tunnel"` it does exactly that, because the operator said so.
 */
export class Interception {
  readonly #ports: ReadonlySet<number>;
  readonly #passthroughHosts: HostMatcher;
  readonly #tunnelsAfterRefusal: boolean;
  readonly #ttlMs: number;
  readonly #now: () => number;
  /** In order of last refusal, oldest first. */
  readonly #refusals: BoundedMap<string, Refusal>;

  constructor(options: InterceptionOptions) {
    this.#ports = new Set(options.ports ?? defaultBridgedPorts);
    this.#passthroughHosts = options.passthroughHosts;
    this.#tunnelsAfterRefusal = options.onFailure === "tunnel";
    this.#ttlMs = options.refusalTtlMs ?? 600_000;
    this.#refusals = new BoundedMap(options.maxRefusals ?? 4096);
    this.#now = options.now ?? Date.now;
  }

  /** Says what to do with a connection to a canonical host and port. */
  decide(destination: { readonly host: string; readonly port: number }): InterceptionDecision {
    const isExempt = this.#passthroughHosts.matches(destination.host);
    if (!this.#ports.has(destination.port))
      return { action: "tunnel", reason: "port", ...(isExempt && { isExempt }) };
    if (isExempt) {
      return { action: "tunnel", reason: "passthrough" };
    }
    if (this.#tunnelsAfterRefusal && this.refusalOf(destination.host) !== undefined) {
      return { action: "tunnel", reason: "client-refused" };
    }
    return { action: "bridge" };
  }

  /** Remembers that a client refused the leaf for `host`, and returns what is now known. */
  recordRefusal(host: string, how: string): Refusal {
    const count = (this.refusalOf(host)?.count ?? 0) + 1;
    const refusal: Refusal = Object.freeze({ host, count, how, lastMs: this.#now() });
    this.#refusals.renew(host, refusal);
    return refusal;
  }

  /** Forgets the refusals of a host, after a client of it accepted the leaf. */
  forget(host: string): void {
    this.#refusals.delete(host);
  }

  /** What is remembered of a host, if it is recent enough. */
  refusalOf(host: string): Refusal | undefined {
    const refusal = this.#refusals.get(host);
    if (refusal === undefined) return undefined;
    const ageMs = this.#now() - refusal.lastMs;
    if (ageMs >= 0 && ageMs < this.#ttlMs) return refusal;
    this.#refusals.delete(host);
    return undefined;
  }

  /** How many hosts are remembered. */
  get size(): number {
    return this.#refusals.size;
  }
}
