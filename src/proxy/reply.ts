/** The only translator from a refusal or a fault to what the client reads: HTTP, CONNECT or JSON-RPC. */
import { STATUS_CODES } from "node:http";
import { ProxyError, statusOfCode } from "../errors.ts";
import type { RequestContext } from "../pipeline/context.ts";
import type { Denial, Reply } from "../pipeline/decision.ts";

/** What parsers leave in `context.facts` under `mcp`, as far as an answer needs it. */
interface McpRequestFact {
  readonly id?: string | number | null;
}

const jsonRpcErrorCode = -32_000;

/** The denial that a fault means. Unknown faults say nothing about themselves. */
export function denialOf(error: unknown): Denial {
  if (error instanceof ProxyError) {
    const message = error.code === "internal.fault" ? "internal error" : error.message;
    const { code, headers } = error;
    return { code, message, ...(headers === undefined ? {} : { headers }) };
  }
  return { code: "internal.fault", message: "internal error" };
}

/** HTTP status of a denial: its own, else the table's. */
export function statusOf(denial: Denial): number {
  return denial.status ?? statusOfCode(denial.code);
}

/** The plain form (contract 3.3): `{error, message, description?, details?, plugin?}`. */
export function renderDenial(denial: Denial): Reply {
  return jsonReply(statusOf(denial), serialise(denial), denial.headers);
}

/**
 * The answer to a refused request, in the form that its sender understands.
 *
 * An MCP request with an id gets HTTP 200 and a JSON-RPC error, because that is what its client shows to the model;
 * everything else, notifications included, gets the plain form.
 */
export function renderRefusal(denial: Denial, context: RequestContext): Reply {
  const id = context.flow.direction === "outbound" ? mcpRequestId(context) : undefined;
  if (id === undefined) return renderDenial(denial);
  return jsonReply(200, jsonRpcError(id, denial), denial.headers);
}

function mcpRequestId(context: RequestContext): string | number | undefined {
  if (!context.hasFacts) return undefined;
  const fact = context.facts.get("mcp") as McpRequestFact | undefined;
  const id = fact?.id;
  return typeof id === "string" || (typeof id === "number" && Number.isFinite(id)) ? id : undefined;
}

/** A JSON-RPC 2.0 error frame; details that cannot be serialised are left out. */
export function jsonRpcError(id: string | number | null, denial: Denial): string {
  const frame = (data: unknown): string =>
    JSON.stringify({
      jsonrpc: "2.0",
      id,
      error: {
        code: jsonRpcErrorCode,
        message: denial.message,
        ...(data === undefined ? {} : { data }),
      },
    });
  try {
    return frame(JSON.parse(serialise(denial, false)));
  } catch {
    return frame(undefined);
  }
}

function serialise(denial: Denial, withMessage = true): string {
  const { code, message, description, details, plugin } = denial;
  const body = {
    error: code,
    ...(withMessage ? { message } : {}),
    ...(description === undefined ? {} : { description }),
    ...(details === undefined ? {} : { details }),
    ...(plugin === undefined ? {} : { plugin }),
  };
  try {
    return JSON.stringify(body);
  } catch {
    if (!withMessage) throw new TypeError("details cannot be serialised");
    return JSON.stringify({ error: code, message });
  }
}

function jsonReply(status: number, json: string, headers: Denial["headers"]): Reply {
  return {
    status,
    headers: { "Content-Type": "application/json", ...headers },
    body: Buffer.from(json),
  };
}

/** A whole HTTP/1.1 message, for sockets that have no response object (CONNECT, malformed requests). */
export function rawReply(reply: Reply): Buffer {
  const head = [`HTTP/1.1 ${reply.status} ${STATUS_CODES[reply.status] ?? "Refused"}`];
  for (const [name, value] of Object.entries(reply.headers)) head.push(`${name}: ${value}`);
  head.push(`Content-Length: ${reply.body.length}`, "Connection: close");
  return Buffer.concat([Buffer.from(`${head.join("\r\n")}\r\n\r\n`, "latin1"), reply.body]);
}
