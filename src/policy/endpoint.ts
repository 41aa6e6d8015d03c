/** One endpoint of a policy entry: which hosts and ports it opens and which requests may be made there. */
import type { AddressSet } from "../net/address.ts";
import type { Glob } from "../pattern/glob.ts";
import type { InspectedProtocol, Rule } from "./rule.ts";

/** A GraphQL operation that a client may name by its hash or id instead of sending it. */
export interface RegisteredOperation {
  readonly operationType: string;
  readonly operationName: string;
  readonly fields: readonly string[];
}

/** What an endpoint says about the requests to it; absent where it opens the host and nothing more. */
export interface Inspection {
  readonly protocol: InspectedProtocol;
  /** `ask`: a person decides on what no rule allows. */
  readonly enforcement: "audit" | "enforce" | "ask";
  readonly allow: readonly Rule[];
  readonly deny: readonly Rule[];
  /** What a person decides on, whatever allows it. */
  readonly ask: readonly Rule[];
  /** Longest body that is read in order to judge it. */
  readonly bodyLimitBytes: number;
  readonly allowsEncodedSlash: boolean;
  /** The server takes paths as they are spelt, so that only the spelling is judged. */
  readonly allowsAmbiguousPath: boolean;
  /** Empty unless `persisted_queries: allow_registered`. */
  readonly registered: ReadonlyMap<string, RegisteredOperation>;
  readonly strictToolNames: boolean;
  /** `mcp.allow_all_known_mcp_methods`. */
  readonly allowsAllMethods: boolean;
  /** Rules of a WebSocket endpoint select GraphQL operations, so that every message must be one. */
  readonly judgesOperations: boolean;
  /** Some connection that a WebSocket endpoint lets through may have messages that its rules do not allow. */
  readonly judgesMessages: boolean;
}

/** One endpoint as read from a policy. */
export interface Endpoint {
  /** Place within its entry, e.g. `endpoints[0]`. */
  readonly label: string;
  /** Lower case; empty for an endpoint that is open to any host whose address is in `allowedIps`. */
  readonly host: string;
  readonly ports: readonly number[];
  /** The pattern as written; empty is every path. */
  readonly path: string;
  /** Decides whether this endpoint's settings apply to a path; `*` crosses `/`. */
  readonly selector: Glob | undefined;
  /** Decides whether this endpoint's rules are asked about a path. */
  readonly pathGlob: Glob | undefined;
  /** Number of characters of `path` other than `*`; the highest wins. */
  readonly specificity: number;
  /** `tls: skip` leaves the connection as it is; undefined where the file says nothing. */
  readonly tls: "auto" | "skip" | undefined;
  /** `protocol: tcp`, written. */
  readonly isTcp: boolean;
  /** The ranges that the address dialled must be in; undefined is no constraint. */
  readonly allowedIps: AddressSet | undefined;
  readonly inspection: Inspection | undefined;
  /** A person decides on each connection: the endpoint opens the host whole, and its enforcement is `ask`. */
  readonly asksForHost: boolean;
}

/** One entry of `network_policies`: endpoints and the executables that may use them. */
export interface PolicyEntry {
  readonly key: string;
  readonly name: string;
  readonly endpoints: readonly Endpoint[];
  /** Paths or patterns over the executable and its ancestors; see the dialect for what an empty list means. */
  readonly binaries: readonly string[];
  /** Authenticated names of the agents that the entry is for; undefined is every agent. */
  readonly callers: ReadonlySet<string> | undefined;
}

/** A policy document that passed validation; entries are in byte order of their keys. */
export interface PolicyDocument {
  readonly entries: readonly PolicyEntry[];
}

/** The points on which files of this format are read in more than one way. */
export interface Dialect {
  /** Whom an entry without binaries admits: anybody (the endpoint is the gate) or nobody. */
  readonly emptyBinaries: "any" | "deny";
  /** A caller that cannot be identified is judged as `<unresolved>`, which no binary rule matches, or refused. */
  readonly unresolvedIdentity: "sentinel" | "deny";
  /** What an endpoint without `enforcement` does with a violation. */
  readonly enforcementDefault: "audit" | "enforce";
  /** A rule for GET also selects HEAD (RFC 9110 section 9.3.2). */
  readonly headMatchesGet: boolean;
}

/** The dialect of plain files. */
export const defaultDialect: Dialect = Object.freeze({
  emptyBinaries: "any",
  unresolvedIdentity: "sentinel",
  enforcementDefault: "audit",
  headMatchesGet: true,
});
