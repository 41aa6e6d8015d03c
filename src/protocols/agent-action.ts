/** What an outbound message is to whoever judges actions: an action, the mechanics of a protocol, or neither that anyone could tell. */
import { foldedName, isObject, type JsonObject, objectsOf } from "../http/json-access.ts";
import { classifyRpc, messagesOf } from "../http/json-rpc.ts";
import type { RequestContext } from "../pipeline/plugin.ts";
import { a2aFact, a2aMethod, isA2aAction } from "./a2a-message.ts";
import { inferenceFact } from "./inference-view.ts";
import { isMcpAction, isMcpMethod, type McpFact, mcpFact } from "./mcp-message.ts";
import { isHidden, requestJson } from "./message-json.ts";

/** The kind of a message, by what the parsers before it and its own bytes say. */
export type ActionKind =
  | { readonly kind: "action" }
  | { readonly kind: "inference" }
  | { readonly kind: "mechanics" }
  | { readonly kind: "unclassified" }
  /** Some reader could see an action in it that the parsers did not. */
  | { readonly kind: "unparsable"; readonly why: string };

/** Classifies a message. A batch is an action when one of its messages is. */
export function classify(context: RequestContext): ActionKind {
  const doubt = doubtOf(context);
  if (doubt !== undefined) return { kind: "unparsable", why: doubt };
  const { facts } = context;
  const mcp = facts.get(mcpFact);
  const a2a = facts.get(a2aFact);
  const isAction =
    mcpActions(mcp).length > 0 ||
    [a2a, ...(a2a?.batch ?? [])].some((one) => isA2aAction(one?.method));
  if (isAction) return { kind: "action" };
  if (facts.has(inferenceFact)) return { kind: "inference" };
  return mcp === undefined && a2a === undefined ? { kind: "unclassified" } : { kind: "mechanics" };
}

/** The actions among the messages of MCP. */
export function mcpActions(mcp: McpFact | undefined): readonly McpFact[] {
  if (mcp === undefined) return [];
  return (mcp.batch ?? [mcp]).filter(({ method = "" }) => isMcpAction(method));
}

const opensJson = /^[\s\uFEFF]*[[{]/;

/**
 * Why the message may be an action to its server although no parser reads it as one: JSON that readers take in two
 * ways, JSON-RPC in a spelling that only some accept.
 */
function doubtOf(context: RequestContext): string | undefined {
  if (context.body === undefined && context.unread !== undefined) return context.unread.message;
  const json = requestJson(context);
  if (json.kind === "absent") return undefined;
  if (json.kind === "json") return rpcDoubt(json.value);
  const clear = context.clearBody;
  const bytes = clear?.kind === "body" ? clear.bytes : context.body;
  const start = bytes?.subarray(0, 256) ?? Buffer.alloc(0);
  // UTF-16 and UTF-32 have zeros where UTF-8 has none.
  const text = start.toString("latin1").replace(/^(?:ï»¿|ÿþ|þÿ)|\0/g, "");
  return isHidden(context) || opensJson.test(text) ? json.reason : undefined;
}

function rpcDoubt(value: unknown): string | undefined {
  const raw = Array.isArray(value) ? objectsOf(value) : isObject(value) ? [value] : [];
  const isRpc = raw.some(
    (one) => Object.keys(one).some((name) => foldedName(name) === "jsonrpc") || namesMethod(one),
  );
  if (!isRpc) return undefined;
  for (const message of messagesOf(classifyRpc(value))) {
    if (message.kind === "invalid")
      return `JSON-RPC that servers read differently: ${message.reason}`;
  }
  return undefined;
}

/** A method of an agents' protocol, whatever stands around it. */
function namesMethod(message: JsonObject): boolean {
  return Object.entries(message).some(
    ([name, method]) =>
      foldedName(name) === "method" &&
      typeof method === "string" &&
      (isMcpMethod(method) || a2aMethod(method) !== undefined),
  );
}
