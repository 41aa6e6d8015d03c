/** What is a message of the Model Context Protocol, and what of it goes into the record. */
import { isObject } from "../http/json-access.ts";
import { factKey } from "../pipeline/facts.ts";
import type { RpcId, RpcMessage } from "../http/json-rpc.ts";

/** The view of a message under `mcp`: the request's half, and the response's half once it is known. */
export interface McpFact {
  readonly method?: string;
  /** With the type that it has on the wire; absent for notifications. */
  readonly rpcId?: string | number;
  /** As of {@link isMcpAction}. */
  readonly isAction?: true;
  readonly params?: Readonly<Record<string, unknown>>;
  readonly result?: Readonly<Record<string, unknown>>;
  readonly error?: McpError;
  /** Every message of a batch, in order; the members above are then those of its first action. */
  readonly batch?: readonly McpFact[];
}

/** Where mcp-parser leaves the view. */
export const mcpFact = factKey<McpFact>("mcp");

/** An error of JSON-RPC. */
export interface McpError {
  readonly code: number;
  readonly message: string;
  readonly data?: unknown;
}

const names: ReadonlySet<string> = new Set(["initialize", "ping"]);

/** Namespaces of the revisions 2024-11-05 to 2026-07-28. `tasks/` is not here: A2A has it as well. */
const namespaces = [
  "notifications/",
  "tools/",
  "resources/",
  "prompts/",
  "completion/",
  "logging/",
  "sampling/",
  "roots/",
  "elicitation/",
  "server/",
  "subscriptions/",
];

const actions: ReadonlySet<string> = new Set(["tools/call", "prompts/get", "resources/read"]);

/** Whether a method is one of the protocol. */
export function isMcpMethod(method: string): boolean {
  return names.has(method) || namespaces.some((prefix) => method.startsWith(prefix));
}

/** Whether a method makes something happen or reads something, in contrast to the mechanics of the protocol. */
export function isMcpAction(method: string): boolean {
  return actions.has(method);
}

/** The messages as the record shows them; undefined when there is none. */
export function factOf(messages: readonly RpcMessage[], isBatch: boolean): McpFact | undefined {
  const facts = messages.map(callFact);
  if (!isBatch) return facts[0];
  const first = facts.find(({ method = "" }) => isMcpAction(method)) ?? facts[0];
  return { ...first, batch: facts };
}

function callFact(message: RpcMessage): McpFact {
  if (message.kind === "invalid") return {};
  if (message.kind === "response") return { ...idOf(message.id), ...outcomeOf(message) };
  const { method, params } = message;
  return {
    method,
    ...(message.kind === "request" ? idOf(message.id) : {}),
    ...(isMcpAction(method) ? { isAction: true } : {}),
    ...(isObject(params) ? { params } : {}),
  };
}

function idOf(id: RpcId): { readonly rpcId?: string | number } {
  return id === null ? {} : { rpcId: id };
}

/** What a response says; nothing when it says it in a shape that no client reads. */
export function outcomeOf(
  message: Extract<RpcMessage, { readonly kind: "response" }>,
): Pick<McpFact, "result" | "error"> {
  const { result, error } = message;
  if (isObject(result)) return { result };
  if (typeof error !== "object" || error === null) return {};
  const { code, message: text, data } = error as Readonly<Record<string, unknown>>;
  return {
    error: {
      code: typeof code === "number" ? code : 0,
      message: typeof text === "string" ? text : "",
      ...(data === undefined ? {} : { data }),
    },
  };
}
