/** Messages of MCP to a place that no server of the file names, also those that no parser of this pipeline recognizes. */
import { foldedName, isObject, objectsOf } from "../../http/json-access.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import { isMcpMethod, mcpFact } from "../../protocols/mcp-message.ts";
import { isHidden, requestJson } from "../../protocols/message-json.ts";
import type { TransportProblem } from "./transport.ts";

/** Why a request to such a place is refused; undefined where it is no message of MCP. */
export function strayProblem(context: RequestContext): TransportProblem | undefined {
  if (context.body === undefined && context.unread !== undefined)
    return { reason: "body_unread", denial: context.unread };
  if (isHidden(context)) {
    const message =
      "the body cannot be read in its content coding, and may be a message of MCP (tool-policy other_servers: ignore lets it through)";
    return { reason: "body_unread", denial: { code: "request.unsupported-content", message } };
  }
  const fact = context.facts.get(mcpFact);
  const messages = fact === undefined ? [] : (fact.batch ?? [fact]);
  const isMcp = messages.some(({ method }) => method?.startsWith("$") === false);
  if (!isMcp && !(fact === undefined && mayBeMcp(context))) return undefined;
  const { authority } = context.destination;
  const message = `No tool policy covers the MCP server ${authority} at this path. Use a server that is configured (tool-policy servers).`;
  return { reason: "unknown_server", denial: { code: "policy.forbidden", message } };
}

/** Whether a body that was not recognised may still be a message of MCP to a server that is less strict. */
function mayBeMcp(context: RequestContext): boolean {
  const json = requestJson(context);
  switch (json.kind) {
    case "absent":
      return false;
    case "json":
      return namesMethod(json.value);
    case "invalid":
      return mentionsRpc(context);
  }
}

function namesMethod(value: unknown): boolean {
  const messages = Array.isArray(value) ? objectsOf(value) : isObject(value) ? [value] : [];
  return messages.some((message) =>
    Object.entries(message).some(
      ([name, method]) =>
        foldedName(name) === "method" && typeof method === "string" && isMcpMethod(method),
    ),
  );
}

/** The same of what is not JSON to us: with a key twice, or in another encoding. */
function mentionsRpc({ clearBody, body, headers }: RequestContext): boolean {
  if (["mcp-method", "mcp-session-id", "mcp-protocol-version"].some((name) => headers.has(name))) {
    return true;
  }
  const bytes = clearBody?.kind === "body" ? clearBody.bytes : body;
  // UTF-16 and UTF-32 have zeros where UTF-8 has none.
  const text = bytes?.toString("latin1").replaceAll("\0", "") ?? "";
  const unescaped = text.replaceAll(/\\u00([0-9a-f]{2})/gi, (_all, code: string) =>
    String.fromCharCode(Number.parseInt(code, 16)),
  );
  return /jsonrpc/i.test(unescaped);
}
