/** The local end at which an agent asks for what was left out: a tool of MCP, and a plain GET. */
import { classifyRpc, type RpcId } from "../../http/json-rpc.ts";
import { isObject, numberOf, objectOf, textOf } from "../../http/json-access.ts";
import { type Decision, type RequestContext, respond, type Soon } from "../../pipeline/plugin.ts";
import { requestJson } from "../../protocols/message-json.ts";
import { toolName, wholeText } from "./marker.ts";

/** Finds a whole text; undefined where there is none that this session may have. */
export type FindText = (id: string) => Soon<string | undefined>;

const versions = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
const textPath = /^\/texts\/([0-9a-f]{20})$/;
const tool = {
  name: toolName,
  description:
    "Gives the whole text of a tool output that was shortened. A shortened output ends in a marker that begins with [context-guru and the id. With from_line and lines it gives a part.",
  inputSchema: {
    type: "object",
    properties: {
      id: { type: "string", description: "The id in the marker." },
      from_line: { type: "integer", minimum: 1, description: "First line. Default 1." },
      lines: { type: "integer", minimum: 1, description: "How many lines. Default: all." },
    },
    required: ["id"],
  },
  annotations: { readOnlyHint: true, openWorldHint: false },
};

/** Responds to one request to the local host, whatever it is. */
export async function expansion(context: RequestContext, find: FindText): Promise<Decision> {
  const { method, pathname } = context;
  const id = textPath.exec(pathname)?.[1];
  if (id !== undefined && (method === "GET" || method === "HEAD")) {
    const text = await find(id);
    if (text === undefined) return refusal(404, "unknown_text", "no such text in this session");
    return said("expanded", 200, "text/plain; charset=utf-8", wholeText(id, text));
  }
  if (pathname !== "/mcp") return refusal(404, "unknown_path", "GET /texts/ID, or MCP at /mcp");
  if (method !== "POST")
    return refusal(405, "unknown_method", "MCP is POST here", { allow: "POST" });
  const json = requestJson(context);
  if (json.kind !== "json") return refusal(400, "unparsable", "the body is no message of MCP");
  const message = classifyRpc(json.value);
  if (message.kind === "notification" || message.kind === "response") {
    return respond("mcp_accepted", { status: 202, headers: {}, body: Buffer.alloc(0) });
  }
  if (message.kind !== "request") return refusal(400, "unparsable", "one request of MCP at a time");
  return call(message.id, message.method, { params: objectOf(message.params), find });
}

function call(
  id: RpcId,
  method: string,
  { params, find }: { readonly params: Readonly<Record<string, unknown>>; readonly find: FindText },
): Soon<Decision> {
  switch (method) {
    case "initialize": {
      const asked = textOf(params["protocolVersion"]) ?? "";
      return result(id, {
        protocolVersion: versions.includes(asked) ? asked : versions[0],
        capabilities: { tools: {} },
        serverInfo: { name: "context-guru", version: "1" },
      });
    }
    case "ping":
      return result(id, {});
    case "tools/list":
      return result(id, { tools: [tool] });
    case "tools/call":
      return params["name"] === toolName
        ? expanded(id, params["arguments"], find)
        : failure(id, -32_602, "unknown tool");
    default:
      return failure(id, -32_601, "unknown method");
  }
}

async function expanded(id: RpcId, args: unknown, find: FindText): Promise<Decision> {
  const asked = isObject(args) ? (textOf(args["id"]) ?? "") : "";
  const text = await find(asked);
  if (text === undefined) {
    const content = [{ type: "text", text: "There is no such text in this session." }];
    return result(id, { content, isError: true }, "unknown_text");
  }
  const from = Math.max(1, Math.trunc(numberOf(objectOf(args)["from_line"]) ?? 1));
  const count = Math.max(1, Math.trunc(numberOf(objectOf(args)["lines"]) ?? Infinity));
  const isPart = from > 1 || count !== Infinity;
  const part = isPart
    ? text
        .split("\n")
        .slice(from - 1, from - 1 + count)
        .join("\n")
    : text;
  return result(id, { content: [{ type: "text", text: wholeText(asked, part) }] }, "expanded");
}

function result(id: RpcId, value: object, reason = "mcp_answered"): Decision {
  return said(
    reason,
    200,
    "application/json",
    JSON.stringify({ jsonrpc: "2.0", id, result: value }),
  );
}

function failure(id: RpcId, code: number, message: string): Decision {
  const json = JSON.stringify({ jsonrpc: "2.0", id, error: { code, message } });
  return said("mcp_refused", 200, "application/json", json);
}

function refusal(
  status: number,
  reason: string,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): Decision {
  const body = Buffer.from(JSON.stringify({ error: "request.not-found", message }));
  return respond(reason, {
    status,
    headers: { "content-type": "application/json", ...headers },
    body,
  });
}

function said(reason: string, status: number, type: string, text: string): Decision {
  return respond(reason, { status, headers: { "content-type": type }, body: Buffer.from(text) });
}
