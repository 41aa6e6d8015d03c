/** A policy document compiled into an immutable structure that finds the endpoints of a destination at once. */
import { BinaryMatcher } from "./binary-matcher.ts";
import {
  defaultDialect,
  type Dialect,
  type Endpoint,
  type PolicyDocument,
  type PolicyEntry,
} from "./endpoint.ts";
import { GlobTable } from "../pattern/glob.ts";
import { HostIndex } from "./host-index.ts";
import { PlaceMemo } from "./place-memo.ts";
import type { ConnectFacts } from "./request-facts.ts";

/** An entry with its compiled binaries; `order` is its place in byte order of the keys. */
export interface CompiledEntry {
  readonly entry: PolicyEntry;
  readonly binaries: BinaryMatcher;
  readonly order: number;
}

interface Filed {
  readonly compiled: CompiledEntry;
  readonly endpoint: Endpoint;
  /** Place among all endpoints: entries in key order, endpoints in file order. */
  readonly order: number;
}

/** An endpoint that is open to a destination. */
export interface Match extends Filed {
  /** The endpoint names this very host. */
  readonly isExact: boolean;
}

/** Compiled rules of one document. */
export class PolicyRules {
  readonly dialect: Dialect;
  readonly document: PolicyDocument;
  readonly endpointCount: number;
  /** Some decision depends on who the caller is. */
  readonly needsCaller: boolean;
  readonly #index = new HostIndex<Filed>();
  readonly #found = new PlaceMemo<readonly Match[]>((host, port) => this.#find(host, port));

  constructor(document: PolicyDocument, dialect: Partial<Dialect> = {}) {
    this.document = document;
    this.dialect = Object.freeze({ ...defaultDialect, ...dialect });
    const globs = new GlobTable();
    const matchers = new Map<string, BinaryMatcher>();
    let order = 0;
    for (const [entryOrder, entry] of document.entries.entries()) {
      const key = JSON.stringify(entry.binaries);
      const binaries = matchers.get(key) ?? new BinaryMatcher(entry.binaries, globs);
      matchers.set(key, binaries);
      const compiled = { entry, binaries, order: entryOrder };
      for (const endpoint of entry.endpoints) {
        this.#index.add(endpoint.host, { compiled, endpoint, order });
        order += 1;
      }
    }
    this.endpointCount = order;
    this.needsCaller =
      this.dialect.unresolvedIdentity === "deny" ||
      document.entries.some((entry) => entry.binaries.length > 0);
  }

  get isEmpty(): boolean {
    return this.document.entries.length === 0;
  }

  /** The endpoints of a canonical host and port, whoever asks, in document order. */
  endpointsOf(host: string, port: number): readonly Match[] {
    return this.#found.of(host, port);
  }

  #find(host: string, port: number): readonly Match[] {
    const found: Match[] = [];
    this.#index.forEach(host, (filed, isExact) => {
      if (filed.endpoint.ports.includes(port)) found.push({ ...filed, isExact });
    });
    return found.length > 1 ? found.sort((one, other) => one.order - other.order) : found;
  }

  /** Whether an entry admits a caller. */
  admits(compiled: CompiledEntry, caller: ConnectFacts): boolean {
    if (!isFor(compiled.entry, caller)) return false;
    if (compiled.binaries.isEmpty) return this.dialect.emptyBinaries === "any";
    return compiled.binaries.matches(caller);
  }
}

/** Whether an entry is meant for the agent, by its authenticated name. */
export function isFor({ callers }: PolicyEntry, { caller }: ConnectFacts): boolean {
  return callers === undefined || (caller !== undefined && callers.has(caller));
}
