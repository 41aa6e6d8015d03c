/** What an outbound message is to ibac: an action, the mechanics of a protocol, or something that cannot be classified. */
import { hash } from "node:crypto";
import { isObject, type JsonObject, objectsOf, foldedName } from "../../http/json-access.ts";
import { classifyRpc, messagesOf } from "../../http/json-rpc.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import { a2aFact, a2aMethod, isA2aAction } from "../../protocols/a2a-message.ts";
import { inferenceFact } from "../../protocols/inference-view.ts";
import { isMcpAction, isMcpMethod, type McpFact, mcpFact } from "../../protocols/mcp-message.ts";
import { requestJson } from "../../protocols/message-json.ts";

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
    mcpCalls(mcp).length > 0 ||
    [a2a, ...(a2a?.batch ?? [])].some((one) => isA2aAction(one?.method));
  if (isAction) return { kind: "action" };
  if (facts.has(inferenceFact)) return { kind: "inference" };
  return mcp === undefined && a2a === undefined ? { kind: "unclassified" } : { kind: "mechanics" };
}

function mcpCalls(mcp: McpFact | undefined): readonly McpFact[] {
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
  const bytes = context.clearBody?.kind === "body" ? context.clearBody.bytes : context.body;
  const start = bytes?.subarray(0, 256) ?? Buffer.alloc(0);
  // UTF-16 and UTF-32 have zeros where UTF-8 has none.
  const text = start.toString("latin1").replace(/^(?:ï»¿|ÿþ|þÿ)|\0/g, "");
  const isEncoded =
    context.clearBody?.kind === "corrupt" || context.clearBody?.kind === "too-large";
  return isEncoded || opensJson.test(text) ? json.reason : undefined;
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

/** An action in words for the judge, and the key under which its verdict is kept. */
export interface DescribedAction {
  readonly text: string;
  /** Digest over everything that the message says, shown or not. */
  readonly key: string;
}

const secretNames =
  /^(?:.*[-_])?(?:key|api_?key|token|secret|password|passwd|sig|signature|credential)s?$/i;

/**
 * The action as one JSON object, whole: a judge that sees a part of it judges another action.
 *
 * Undefined where it is longer than `maxChars`, or has bytes that no text shows. Header fields are not described: that
 * is where credentials are.
 */
export function describe(context: RequestContext, maxChars: number): DescribedAction | undefined {
  const { destination, method, facts } = context;
  const clear = context.clearBody?.kind === "body" ? context.clearBody.bytes : undefined;
  const described: Record<string, unknown> = {
    method,
    url: `${destination.scheme}://${destination.authority}${shownPath(context.path)}`,
  };
  const calls = mcpCalls(facts.get(mcpFact));
  const inference = facts.get(inferenceFact);
  if (calls.length > 0) {
    described["mcp_calls"] = calls.map(({ method: name, params }) => ({ method: name, ...params }));
  }
  if (calls.length === 0 || facts.has(a2aFact) || inference !== undefined) {
    if (!addBody(described, clear, maxChars)) return undefined;
  }
  const text = JSON.stringify(described);
  if (text.length > maxChars) return undefined;
  const parts = [method, destination.authority, context.path, text];
  const head = parts.map((part) => `${part.length}:${part}`).join("");
  return {
    text,
    key: hash("sha256", Buffer.concat([Buffer.from(head), clear ?? Buffer.alloc(0)])),
  };
}

function addBody(
  described: Record<string, unknown>,
  clear: Buffer | undefined,
  maxChars: number,
): boolean {
  if (clear === undefined || clear.length === 0) return true;
  if (clear.length > maxChars * 4) return false;
  try {
    described["body"] = new TextDecoder("utf-8", { fatal: true }).decode(clear);
    return true;
  } catch {
    return false;
  }
}

/** The path and the query, without the values of parameters that are credentials by their names. */
function shownPath(path: string): string {
  const at = path.indexOf("?");
  if (at === -1) return path;
  const query = path
    .slice(at + 1)
    .split("&")
    .map((pair) => {
      const [name = ""] = pair.split("=", 1);
      return secretNames.test(name) ? `${name}=[redacted]` : pair;
    });
  return `${path.slice(0, at)}?${query.join("&")}`;
}
