/** Classifies JSON-RPC 2.0 messages: one message or a batch, and only what every reader reads alike. */
import { foldedName } from "./json-access.ts";

/** The id of a request, with its type. */
export type RpcId = string | number | null;

/** One JSON-RPC message; "invalid" carries the id where it could be read, for the response. */
export type RpcMessage =
  | {
      readonly kind: "request";
      readonly id: RpcId;
      readonly method: string;
      readonly params: unknown;
    }
  | { readonly kind: "notification"; readonly method: string; readonly params: unknown }
  | {
      readonly kind: "response";
      readonly id: RpcId;
      readonly result?: unknown;
      readonly error?: unknown;
    }
  | { readonly kind: "invalid"; readonly id: RpcId; readonly reason: string };

/** A body of JSON-RPC: one message or a batch, whose entries are judged one by one. */
export type RpcBody =
  RpcMessage | { readonly kind: "batch"; readonly messages: readonly RpcMessage[] };

/** Says what a parsed JSON value is as JSON-RPC 2.0. */
export function classifyRpc(value: unknown): RpcBody {
  if (!Array.isArray(value)) {
    return classifyMessage(value);
  }
  return value.length === 0
    ? { kind: "invalid", id: null, reason: "the batch is empty" }
    : { kind: "batch", messages: value.map(classifyMessage) };
}

/** The messages of a body: those of a batch, or the one that it is. */
export function messagesOf(body: RpcBody): readonly RpcMessage[] {
  return body.kind === "batch" ? body.messages : [body];
}

const reserved: ReadonlySet<string> = new Set([
  "jsonrpc",
  "id",
  "method",
  "params",
  "result",
  "error",
]);

function classifyMessage(value: unknown): RpcMessage {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return { kind: "invalid", id: null, reason: "a message is not an object" };
  }
  const members = value as Members;
  const id = own(members, "id");
  const reason = memberProblem(members);
  if (reason !== undefined) return { kind: "invalid", id: isRpcId(id) ? id : null, reason };
  return Object.hasOwn(members, "method") ? classifyCall(members) : classifyResponse(members);
}

type Members = Readonly<Record<string, unknown>>;

/** Nothing is inherited: a member that is not there is undefined. */
function own(members: Members, name: string): unknown {
  return Object.hasOwn(members, name) ? members[name] : undefined;
}

function memberProblem(members: Members): string | undefined {
  for (const name of Object.keys(members)) {
    // Some decoders match names without regard to case.
    if (!reserved.has(name) && reserved.has(foldedName(name))) {
      return "a member differs from a JSON-RPC member only by case";
    }
  }
  if (own(members, "jsonrpc") !== "2.0") return 'jsonrpc is not "2.0"';
  return Object.hasOwn(members, "id") && !isRpcId(members["id"])
    ? "id is not a string, a safe number or null"
    : undefined;
}

function classifyCall(members: Members): RpcMessage {
  const { method } = members;
  const params = own(members, "params");
  const id = own(members, "id");
  const invalid = (reason: string): RpcMessage => ({
    kind: "invalid",
    id: isRpcId(id) ? id : null,
    reason,
  });
  if (typeof method !== "string") {
    return invalid("method is not a string");
  }
  if (Object.hasOwn(members, "result") || Object.hasOwn(members, "error")) {
    return invalid("a message is both a call and a response");
  }
  if (Object.hasOwn(members, "params") && (typeof params !== "object" || params === null)) {
    return invalid("params is not an object or array");
  }
  return isRpcId(id)
    ? { kind: "request", id, method, params }
    : { kind: "notification", method, params };
}

function classifyResponse(members: Members): RpcMessage {
  const id = own(members, "id");
  const hasResult = Object.hasOwn(members, "result");
  if (hasResult === Object.hasOwn(members, "error")) {
    const reason = "a message has not exactly one of method, result and error";
    return { kind: "invalid", id: isRpcId(id) ? id : null, reason };
  }
  if (!isRpcId(id)) {
    return { kind: "invalid", id: null, reason: "a response has no id" };
  }
  return hasResult
    ? { kind: "response", id, result: members["result"] }
    : { kind: "response", id, error: members["error"] };
}

/** A number that loses digits would be answered under another id. */
function isRpcId(value: unknown): value is RpcId {
  return (
    typeof value === "string" ||
    value === null ||
    (typeof value === "number" && (!Number.isInteger(value) || Number.isSafeInteger(value)))
  );
}

/** An error response of JSON-RPC 2.0 section 5.1. */
export interface RpcErrorResponse {
  readonly jsonrpc: "2.0";
  readonly id: RpcId;
  readonly error: { readonly code: number; readonly message: string; readonly data?: unknown };
}

/** Makes the error response to a message with this id. */
export function errorResponse(
  id: RpcId,
  code: number,
  message: string,
  data?: unknown,
): RpcErrorResponse {
  return { jsonrpc: "2.0", id, error: { code, message, ...(data !== undefined && { data }) } };
}
