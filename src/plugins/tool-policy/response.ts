/** What a guarded server's responses may carry: tools that the caller may use, and requests that it may be asked. */
import { isObject, objectOf } from "../../http/json-access.ts";
import { classifyRpc, errorResponse, type RpcId, type RpcMessage } from "../../http/json-rpc.ts";
import { hasOddNumber } from "../../http/strict-json.ts";
import type { PluginDeps, RpcRefusal } from "../../pipeline/plugin.ts";
import type { GuardedServer } from "../../policy/tools/guarded-server.ts";
import type { Pins } from "../../policy/tools/tool-pins.ts";
import type { ToolCaller } from "../../policy/tools/tool-rule.ts";

/** Whose response is looked at. */
export interface ResponseScope {
  readonly server: GuardedServer;
  readonly caller: ToolCaller;
  /** What ties the requests of the server to the responses of the client. */
  readonly conversation: string;
  /** What tells this server from others, for pins. */
  readonly serverKey: string;
  /** Absent where tools are not pinned. */
  readonly pins: Pins | undefined;
  /** What a refused response is built from: the ids of the calls that wait for it. */
  rpc: RpcRefusal;
  /** What was taken out of this response is in the log. */
  isTold: boolean;
  /** Whether the response is a stream of events, once it has begun. */
  isStream?: boolean;
  /** Called for every request of the server that is forwarded to the client. */
  onServerRequest(id: RpcId): void;
  /** Called for everything that was removed. */
  onRemoved(what: Removed): void;
}

/** Something that the client does not get. */
type Removed =
  | { readonly kind: "tool"; readonly name: string; readonly isChanged: boolean }
  | { readonly kind: "request"; readonly method: string }
  | { readonly kind: "malformed" };

/** One line per message: a server may send any number of what is taken out. */
export function tellRemoved(
  scope: ResponseScope,
  what: Removed,
  { count, log }: Pick<PluginDeps, "count" | "log">,
): void {
  if (what.kind === "tool" && !what.isChanged) return;
  count(what.kind === "tool" ? "tool_changed" : "answer_removed");
  if (scope.isTold) return;
  scope.isTold = true;
  const named = what.kind === "tool" ? { tool: what.name.slice(0, 128) } : {};
  const asked = what.kind === "request" ? { method: what.method.slice(0, 128) } : {};
  log.warn(
    { server: scope.server.name, kind: what.kind, ...named, ...asked },
    "tool-policy: a part of an answer was not forwarded",
  );
}

/** What becomes of one body or frame of JSON-RPC: undefined passes it on as it came. */
export type FilteredResponse = { readonly json: string | undefined } | undefined;

/** Takes out of a parsed body what the client must not get. `bytes` is what `value` was read from. */
export function filterResponse(
  value: unknown,
  bytes: Buffer,
  scope: ResponseScope,
): FilteredResponse {
  const body = classifyRpc(value);
  const verdicts =
    body.kind === "batch"
      ? body.messages.map((message) => judge(message, scope))
      : [judge(body, scope)];
  if (verdicts.every((verdict) => verdict === keep)) return undefined;
  if (verdicts.every((verdict) => verdict === drop)) return { json: undefined };
  // Read again where a number would be written differently: what is not taken out must not change.
  const text = bytes.toString("utf8");
  const whole = hasOddNumber(text) ? parseKeepingNumbers(text) : value;
  const items: readonly unknown[] = Array.isArray(whole) ? whole : [whole];
  const kept = items.flatMap((item, at) => verdicts[at]?.(item) ?? []);
  return { json: JSON.stringify(Array.isArray(whole) ? kept : kept[0]) };
}

/** Makes of a message what the client gets, in a list that is empty when it gets nothing. */
type Verdict = (item: unknown) => readonly unknown[];

const keep: Verdict = (item) => [item];
const drop: Verdict = () => [];

function judge(message: RpcMessage, scope: ResponseScope): Verdict {
  switch (message.kind) {
    case "invalid":
      scope.onRemoved({ kind: "malformed" });
      return drop;
    case "notification":
      if (message.method.startsWith("notifications/")) return keep;
      scope.onRemoved({ kind: "request", method: message.method });
      return drop;
    case "request":
      if (!scope.server.allowsServerRequest(message.method)) {
        scope.onRemoved({ kind: "request", method: message.method });
        return drop;
      }
      scope.onServerRequest(message.id);
      return keep;
    case "response":
      return judgeResult(message.id, message.result, scope);
  }
}

function judgeResult(id: RpcId, result: unknown, scope: ResponseScope): Verdict {
  if (!isObject(result)) return keep;
  const refused = refusedInput(result, scope.server);
  if (refused !== undefined) {
    scope.onRemoved({ kind: "request", method: refused });
    const message = `the server asked its client for ${JSON.stringify(refused.slice(0, 64))}, which the tool policy does not allow`;
    return () => [errorResponse(id, -32_000, message)];
  }
  const { tools } = result;
  if (!Array.isArray(tools)) return keep;
  const shown = tools.map((tool) => isShown(tool, scope));
  if (!shown.includes(false)) return keep;
  return (item) => [withTools(item, shown)];
}

/** A request to the client inside a result (`input_required`, revision 2026-07-28) that is not allowed. */
function refusedInput(
  result: Readonly<Record<string, unknown>>,
  server: GuardedServer,
): string | undefined {
  const { inputRequests } = result;
  if (typeof inputRequests !== "object" || inputRequests === null) return undefined;
  for (const request of Object.values(inputRequests) as unknown[]) {
    const method = isObject(request) ? request["method"] : undefined;
    if (typeof method !== "string") return "unknown";
    if (!server.allowsServerRequest(method)) return method;
  }
  return undefined;
}

function isShown(tool: unknown, scope: ResponseScope): boolean {
  const { server, caller, pins, serverKey } = scope;
  const name = isObject(tool) ? tool["name"] : undefined;
  if (!isObject(tool) || typeof name !== "string") {
    scope.onRemoved({ kind: "malformed" });
    return false;
  }
  // Pinned before it is hidden, so that what another caller sees first is the same.
  const isAsBefore = pins?.observe(serverKey, name, tool) ?? true;
  if (isAsBefore && server.mayUse(caller, name)) return true;
  scope.onRemoved({ kind: "tool", name, isChanged: !isAsBefore });
  return false;
}

function withTools(item: unknown, shown: readonly boolean[]): unknown {
  const message = objectOf(item);
  const result = objectOf(message["result"]);
  const tools: readonly unknown[] = Array.isArray(result["tools"]) ? result["tools"] : [];
  return { ...message, result: { ...result, tools: tools.filter((_tool, at) => shown[at]) } };
}

/** Numbers stay as they were written (`JSON.rawJSON`): schemas have bounds that JavaScript would round. */
function parseKeepingNumbers(text: string): unknown {
  const source = JSON as unknown as { rawJSON(text: string): unknown };
  const reviver = (
    _key: string,
    value: unknown,
    context?: { readonly source?: string },
  ): unknown =>
    typeof value === "number" && context?.source !== undefined
      ? source.rawJSON(context.source)
      : value;
  return (JSON.parse as (text: string, reviver: unknown) => unknown)(text, reviver);
}
