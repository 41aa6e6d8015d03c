/** What is known of a connection and of a request when policy is asked. */
import type { CallerFacts } from "./binary-matcher.ts";

/** A connection that is asked for. Host and port are those that will be dialled, in canonical form. */
export interface ConnectFacts extends CallerFacts {
  readonly host: string;
  readonly port: number;
  /** The authenticated name of the agent, where the proxy asks for one. */
  readonly caller?: string | undefined;
}

/** Decoded query parameters by key; `unreadable` when the query is no form data in UTF-8. */
export type QueryFacts = ReadonlyMap<string, readonly string[]> | "unreadable";

/** One GraphQL operation of a request. */
export interface GraphqlOperation {
  /** Empty for a request that names a persisted operation without sending it. */
  readonly operationType: string;
  readonly operationName?: string | undefined;
  /** Root fields, aliases resolved. */
  readonly fields: readonly string[];
  /** Hash or id of a persisted operation that is not sent along. */
  readonly persisted?: string;
}

/** What a GraphQL body (or WebSocket message) holds. */
export interface GraphqlFacts {
  readonly operations: readonly GraphqlOperation[];
  /** Why it could not be read. */
  readonly error?: string;
}

/** One JSON-RPC call. */
export interface RpcCall {
  readonly method: string;
  /** `params.name` of a `tools/call`. */
  readonly tool?: string;
  /** `params.arguments` of a `tools/call`; without it, servers could read them in two ways. */
  readonly args?: unknown;
}

/** What a JSON-RPC body holds; a batch has several calls. */
export interface RpcFacts {
  readonly calls: readonly RpcCall[];
  /** The client responds to a request of the server. */
  readonly hasResponse?: boolean;
  /** An empty GET that opens the stream of server messages (MCP Streamable HTTP). */
  readonly receivesStream?: boolean;
  /** Why it could not be read. */
  readonly error?: string;
}

/** A request that is asked for, on a connection that is asked for. */
export interface RequestFacts extends ConnectFacts {
  readonly method: string;
  /** One reading of the path that is sent. */
  readonly path: string;
  readonly query: QueryFacts;
  /** Length of the body in the clear, where somebody read it. */
  readonly bodyBytes?: number;
  readonly graphql?: GraphqlFacts;
  readonly rpc?: RpcFacts;
}

const noParameters: QueryFacts = new Map();

/** Reads form data (`a=b&c`), `+` as space; strict UTF-8, as the comparison would otherwise be with a guess. */
export function parseQuery(query: string): QueryFacts {
  if (query === "") return noParameters;
  const found = new Map<string, string[]>();
  const text = query.startsWith("?") ? query.slice(1) : query;
  for (const pair of text.split("&")) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    const key = decode(equals === -1 ? pair : pair.slice(0, equals));
    const value = equals === -1 ? "" : decode(pair.slice(equals + 1));
    if (key === undefined || value === undefined) return "unreadable";
    const values = found.get(key);
    if (values === undefined) found.set(key, [value]);
    else values.push(value);
  }
  return found;
}

function decode(text: string): string | undefined {
  if (!/[%+]/.test(text)) return text;
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    // Not percent-encoded UTF-8: undefined, as nothing can be compared.
    return undefined;
  }
}
