/** JSON-RPC 2.0 as every reader reads it alike: one message or a batch, each told what it is. */
import { foldedName } from "./member-name.ts";

/** The id of a request, with its type. */
export type RpcId = string | number | null;

/** One JSON-RPC message; "invalid" carries the id where it could be read, for the answer. */
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
  const members = new Map<string, unknown>(Object.entries(value));
  const id = members.get("id");
  const invalid = (reason: string): RpcMessage => ({
    kind: "invalid",
    id: isRpcId(id) ? id : null,
    reason,
  });
  for (const name of members.keys()) {
    // Some decoders match names without regard to case.
    if (!reserved.has(name) && reserved.has(foldedName(name))) {
      return invalid("a member differs from a JSON-RPC member only by case");
    }
  }
  if (members.get("jsonrpc") !== "2.0") {
    return invalid('jsonrpc is not "2.0"');
  }
  if (members.has("id") && !isRpcId(id)) {
    return invalid("id is not a string, a safe number or null");
  }
  return members.has("method")
    ? classifyCall(members, invalid)
    : classifyResponse(members, invalid);
}

type Refuse = (reason: string) => RpcMessage;

function classifyCall(members: ReadonlyMap<string, unknown>, invalid: Refuse): RpcMessage {
  const method = members.get("method");
  const params = members.get("params");
  const id = members.get("id");
  if (typeof method !== "string") {
    return invalid("method is not a string");
  }
  if (members.has("result") || members.has("error")) {
    return invalid("a message is both a call and a response");
  }
  if (members.has("params") && (typeof params !== "object" || params === null)) {
    return invalid("params is not an object or array");
  }
  return isRpcId(id)
    ? { kind: "request", id, method, params }
    : { kind: "notification", method, params };
}

function classifyResponse(members: ReadonlyMap<string, unknown>, invalid: Refuse): RpcMessage {
  const id = members.get("id");
  if (members.has("result") === members.has("error")) {
    return invalid("a message has not exactly one of method, result and error");
  }
  if (!isRpcId(id)) {
    return invalid("a response has no id");
  }
  return members.has("result")
    ? { kind: "response", id, result: members.get("result") }
    : { kind: "response", id, error: members.get("error") };
}

/** A number that loses digits would be answered under another id. */
function isRpcId(value: unknown): value is RpcId {
  return (
    typeof value === "string" ||
    value === null ||
    (typeof value === "number" && (!Number.isInteger(value) || Number.isSafeInteger(value)))
  );
}

/** An error answer of JSON-RPC 2.0 section 5.1. */
export interface RpcErrorResponse {
  readonly jsonrpc: "2.0";
  readonly id: RpcId;
  readonly error: { readonly code: number; readonly message: string; readonly data?: unknown };
}

/** Makes the error answer to a message with this id. */
export function errorResponse(
  id: RpcId,
  code: number,
  message: string,
  data?: unknown,
): RpcErrorResponse {
  return { jsonrpc: "2.0", id, error: { code, message, ...(data !== undefined && { data }) } };
}
