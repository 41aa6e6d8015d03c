/** What one request rule of an endpoint selects: HTTP requests, GraphQL operations or JSON-RPC calls. */
import type { Glob } from "../pattern/glob.ts";

/** Patterns of which one must match. */
export type ValueMatcher = readonly Glob[];

/** A rule over method, canonical path and query of an HTTP request or of a WebSocket message. */
export interface HttpRule {
  readonly kind: "http";
  /** Place in the policy, e.g. `endpoints[0].rules[1]`. */
  readonly label: string;
  /** Upper case; `*` is any. */
  readonly method: string;
  readonly path: Glob;
  readonly query: readonly (readonly [key: string, values: ValueMatcher])[];
}

/** The operation types of GraphQL, and `*` for any. */
export const operationTypes = ["query", "mutation", "subscription", "*"] as const;

/** A rule over the operations of a GraphQL request. */
export interface GraphqlRule {
  readonly kind: "graphql";
  readonly label: string;
  readonly operationType: (typeof operationTypes)[number];
  readonly operationName?: Glob | undefined;
  /** Root fields; empty means any. An allow rule needs all of them to match, a deny rule needs one. */
  readonly fields: ValueMatcher;
}

/** A rule over the calls of a JSON-RPC or MCP request. */
export interface RpcRule {
  readonly kind: "rpc";
  readonly label: string;
  /** A string is compared byte for byte; `undefined` is any method. */
  readonly method: string | Glob | undefined;
  /** `params.name` of a `tools/call`; absent means any. */
  readonly tool?: ValueMatcher | undefined;
  /** Whether the arguments of a call are those that the rule selects; absent means any. */
  readonly selectsArguments?: ((args: unknown) => boolean) | undefined;
}

/** Any of the three. */
export type Rule = HttpRule | GraphqlRule | RpcRule;

/** The protocols whose requests are judged one by one. */
export const inspectedProtocols = ["rest", "graphql", "websocket", "json-rpc", "mcp"] as const;

/** One of {@link inspectedProtocols}. */
export type InspectedProtocol = (typeof inspectedProtocols)[number];

/** A WebSocket text message from the client is judged as a request with this method (no HTTP method has a `_`). */
export const websocketText = "WEBSOCKET_TEXT";
