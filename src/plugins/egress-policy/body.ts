/** What a request's body says to a policy: GraphQL operations or JSON-RPC calls, read so that no server reads it otherwise. */
import { hash } from "node:crypto";
import { decodeBody } from "../../http/body.ts";
import { isObject, foldedName } from "../../http/json-access.ts";
import { classifyRpc, messagesOf, type RpcMessage } from "../../http/json-rpc.ts";
import { parseStrictJson } from "../../http/strict-json.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import type { InspectionNeeds } from "../../policy/combined-policy.ts";
import { readToolCall } from "../../policy/tools/tool-call.ts";
import { readGraphqlDocument } from "../../policy/graphql-document.ts";
import type {
  GraphqlFacts,
  GraphqlOperation,
  QueryFacts,
  RequestFacts,
  RpcCall,
  RpcFacts,
} from "../../policy/request-facts.ts";

/** The facts that come from a body. */
export type BodyFacts = Pick<RequestFacts, "bodyBytes" | "graphql" | "rpc">;

/** A longer batch is refused: every entry of it costs a judgement. */
const maxBatch = 100;
/** No pattern matches a text with it, not that of a deny rule either. */
const nul = "\0";

/** Reads the body as far as the endpoints of the destination need it. */
export async function readBodyFacts(
  context: RequestContext,
  needs: InspectionNeeds,
  query: QueryFacts,
): Promise<BodyFacts> {
  const isGraphql = needs.protocols.has("graphql");
  const isRpc = needs.protocols.has("json-rpc") || needs.protocols.has("mcp");
  if (!isGraphql && !isRpc) return {};
  const { body } = context;
  // A body that nobody read must not be taken for none.
  if (context.hasBody && body === undefined) return {};
  const encoding = context.headers.get("content-encoding");
  const decoded = await decodeBody(body ?? Buffer.alloc(0), encoding, needs.bodyLimitBytes);
  if (decoded.kind === "too-large") return { bodyBytes: needs.bodyLimitBytes + 1 };
  const json = decoded.kind === "body" ? jsonOf(context, decoded.bytes) : decoded.kind;
  return {
    bodyBytes: decoded.kind === "body" ? decoded.bytes.length : 0,
    ...(isGraphql ? { graphql: graphqlFacts(context, json, query) } : {}),
    ...(isRpc ? { rpc: rpcFacts(context, json) } : {}),
  };
}

/** A parsed body, or why there is none. */
export type Json = { readonly value: unknown } | string;

function jsonOf(context: RequestContext, bytes: Buffer): Json {
  if (bytes.length === 0) return "the body is empty";
  const [type = "", ...parameters] = (context.headers.get("content-type") ?? "")
    .toLowerCase()
    .split(";")
    .map((part) => part.trim());
  if (type !== "application/json" && !/^application\/[\w.-]+\+json$/.test(type)) {
    return "the content type is not JSON";
  }
  const charset = parameters.find((parameter) => parameter.startsWith("charset="));
  if (charset !== undefined && !/^charset="?utf-?8"?$/.test(charset)) {
    return "the character set is not UTF-8";
  }
  const parsed = parseStrictJson(bytes);
  return parsed.kind === "json" ? { value: parsed.value } : `the body is ${parsed.reason}`;
}

function rpcFacts(context: RequestContext, json: Json): RpcFacts {
  if (context.method !== "POST") {
    const accepts = context.headers.get("accept")?.toLowerCase() ?? "";
    const receivesStream =
      context.method === "GET" && !context.hasBody && accepts.includes("text/event-stream");
    return { calls: [], ...(receivesStream ? { receivesStream } : {}) };
  }
  if (typeof json === "string") return { calls: [], error: json };
  const body = classifyRpc(json.value);
  const messages = messagesOf(body);
  if (messages.length > maxBatch) return { calls: [], error: `a batch of more than ${maxBatch}` };
  const calls: RpcCall[] = [];
  let hasResponse = false;
  for (const message of messages) {
    if (message.kind === "invalid") return { calls: [], error: message.reason };
    if (message.kind === "response") hasResponse = true;
    else {
      const call = callOf(message);
      if (typeof call === "string") return { calls: [], error: call };
      calls.push(call);
    }
  }
  return { calls, ...(hasResponse ? { hasResponse } : {}) };
}

function callOf(message: Extract<RpcMessage, { readonly method: string }>): RpcCall | string {
  const { method, params } = message;
  if (method.includes(nul)) return "the name of a method has a NUL";
  if (method !== "tools/call") return { method };
  if (!isObject(params)) {
    return "a call of a tool has no parameters";
  }
  const members = Object.entries(params);
  // Some decoders match names without regard to case.
  if (members.some(([key]) => key !== "name" && foldedName(key) === "name")) {
    return "a parameter differs from name only by case";
  }
  const tool: unknown = new Map(members).get("name");
  if (typeof tool !== "string") return "a call of a tool does not name it";
  if (tool.includes(nul)) return "the name of a tool has a NUL";
  const read = readToolCall(method, params);
  return typeof read === "string" ? { method, tool } : { method, tool, args: read.args };
}

/** The operations of a request whose body is `json`. */
export function graphqlFacts(context: RequestContext, json: Json, query: QueryFacts): GraphqlFacts {
  const refuse = (error: string): GraphqlFacts => ({ operations: [], error });
  let requests: readonly unknown[];
  if (context.method === "GET") {
    if (context.hasBody) return refuse("a GET has its operation in the query, and no body");
    const request = requestOfQuery(query);
    if (typeof request === "string") return refuse(request);
    requests = [request];
  } else if (context.method !== "POST") return refuse("the method is neither GET nor POST");
  else if (typeof json === "string") return refuse(json);
  else if (hasGraphqlQuery(query)) return refuse("operations are in the query and in the body");
  else requests = Array.isArray(json.value) ? json.value : [json.value];
  if (requests.length === 0 || requests.length > maxBatch) {
    return refuse(`a batch must have 1 to ${maxBatch} operations`);
  }
  const operations: GraphqlOperation[] = [];
  for (const request of requests) {
    const operation = operationOf(request);
    if (typeof operation === "string") return refuse(operation);
    operations.push(operation);
  }
  return { operations };
}

const idKeys = ["id", "documentId", "queryId"];
const queryKeys = ["query", "operationName", "extensions", ...idKeys];

/** Whether the query of a request might name an operation. */
export function hasGraphqlQuery(query: QueryFacts): boolean {
  return query === "unreadable" || queryKeys.some((key) => query.has(key));
}

/** A GET request as the object that its body would be. */
function requestOfQuery(query: QueryFacts): Readonly<Record<string, unknown>> | string {
  if (query === "unreadable") return "the query is not readable";
  const request: Record<string, unknown> = {};
  for (const key of queryKeys) {
    const values = query.get(key) ?? [];
    if (values.length > 1) return `the query has ${key} more than once`;
    if (values[0] !== undefined) request[key] = values[0];
  }
  const { extensions } = request;
  if (typeof extensions !== "string") return request;
  const parsed = parseStrictJson(extensions);
  if (parsed.kind === "invalid") return `extensions are ${parsed.reason}`;
  return { ...request, extensions: parsed.value };
}

/** One operation as a GraphQL client sends it: `{query, operationName, extensions, …}`; a text says why it cannot be read. */
export function operationOf(request: unknown): GraphqlOperation | string {
  if (!isObject(request)) return "an operation is not an object";
  const known = new Set(queryKeys.map(foldedName));
  for (const key of Object.keys(request)) {
    if (known.has(foldedName(key)) && !queryKeys.includes(key)) {
      return "a member differs from a GraphQL member only by case";
    }
  }
  const { query, operationName } = request;
  if (operationName !== undefined && operationName !== null && typeof operationName !== "string") {
    return "operationName is not a string";
  }
  const name = typeof operationName === "string" ? operationName : undefined;
  const persisted = persistedOf(request);
  if (typeof persisted === "string") return persisted;
  if (query === undefined || query === null || query === "") {
    if (persisted.key === undefined) return "there is neither a query nor the id of one";
    const named = name === undefined ? {} : { operationName: name };
    return { operationType: "", fields: [], persisted: persisted.key, ...named };
  }
  if (typeof query !== "string") return "query is not a string";
  // The server runs one of the two: it must not matter which.
  if (persisted.key !== undefined && persisted.key !== hash("sha256", query)) {
    return "the query is not the one that its id names";
  }
  const reading = readGraphqlDocument(query, name);
  return reading.operation ?? reading.error ?? "the document cannot be read";
}

/** The id of a persisted operation, of which a request may have one. */
function persistedOf(
  request: Readonly<Record<string, unknown>>,
): { readonly key: string | undefined } | string {
  const { extensions } = request;
  const ids: unknown[] = idKeys.flatMap((key) => request[key] ?? []);
  if (extensions !== undefined && extensions !== null) {
    if (!isObject(extensions)) return "extensions is not an object";
    const { persistedQuery } = extensions;
    if (persistedQuery !== undefined) {
      if (!isObject(persistedQuery)) return "persistedQuery is not an object";
      ids.push(persistedQuery["sha256Hash"]);
    }
  }
  if (ids.length > 1) return "the operation has more than one id";
  const [key] = ids;
  if (key !== undefined && (typeof key !== "string" || key === "")) return "an id is not a string";
  return { key };
}
