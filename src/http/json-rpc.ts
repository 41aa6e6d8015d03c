/**
 * JSON and JSON-RPC 2.0 that every reader reads alike.
 *
 * Parsers differ on duplicate keys, byte order marks and the case of names, and a policy that reads one value while the
 * server reads another is no policy: what could be read in two ways is not read at all.
 */

/** A JSON value, or why the text is none that is safe to judge. */
export type StrictJson =
  | { readonly kind: "json"; readonly value: unknown }
  | { readonly kind: "invalid"; readonly reason: string };

const defaultDepth = 64;

/** Parses one JSON text: no byte order mark, no duplicate keys, UTF-8 only, bounded depth. Never throws. */
export function parseStrictJson(
  input: string | Uint8Array,
  options: { readonly maxDepth?: number } = {},
): StrictJson {
  let text: string;
  let value: unknown;
  try {
    // ignoreBOM keeps the mark in the text, where it is a syntax error.
    text =
      typeof input === "string"
        ? input
        : new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(input);
    value = JSON.parse(text);
  } catch {
    // Both faults mean the same to the caller, and their messages quote the input.
    return { kind: "invalid", reason: "not valid JSON in UTF-8" };
  }
  const reason = structureProblem(text, options.maxDepth ?? defaultDepth);
  return reason === undefined ? { kind: "json", value } : { kind: "invalid", reason };
}

/** Walks a text that is known to be JSON: only strings and brackets matter. */
function structureProblem(text: string, maxDepth: number): string | undefined {
  /** The keys of each open object; undefined for an array. */
  const open: (Set<string> | undefined)[] = [];
  let isKey = false;
  for (let at = 0; at < text.length; at += 1) {
    switch (text.charCodeAt(at)) {
      case 0x7b: // {
      case 0x5b: // [
        isKey = text.charCodeAt(at) === 0x7b;
        open.push(isKey ? new Set() : undefined);
        if (open.length > maxDepth) {
          return `nested deeper than ${maxDepth} levels`;
        }
        break;
      case 0x7d: // }
      case 0x5d: // ]
        open.pop();
        break;
      case 0x2c: // ,
        isKey = open.at(-1) !== undefined;
        break;
      case 0x22: {
        const end = stringEnd(text, at);
        const keys = open.at(-1);
        if (isKey && keys !== undefined) {
          // Escapes are undone first: "\u006eame" is "name".
          const key = String(JSON.parse(text.slice(at, end + 1)));
          if (keys.has(key)) {
            return "an object has the same key twice";
          }
          keys.add(key);
          isKey = false;
        }
        at = end;
        break;
      }
      default:
    }
  }
  return undefined;
}

function stringEnd(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length && text.charCodeAt(at) !== 0x22) {
    at += text.charCodeAt(at) === 0x5c ? 2 : 1;
  }
  return at;
}

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
    if (!reserved.has(name) && reserved.has(name.toLowerCase())) {
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
