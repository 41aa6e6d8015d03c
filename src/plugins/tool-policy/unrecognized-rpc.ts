/** JSON-RPC that a server may read although no parser of this pipeline recognizes it. */
import { isObject, objectsOf, foldedName } from "../../http/json-access.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import { isMcpMethod } from "../../protocols/mcp-message.ts";
import { requestJson } from "../../protocols/message-json.ts";

/** Whether a body that was not recognised may still be a message of MCP to a server that is less strict. */
export function mayBeMcp(context: RequestContext): boolean {
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

/** The same of what is not JSON to us: with a key twice, another encoding, or in a coding that cannot be undone. */
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
