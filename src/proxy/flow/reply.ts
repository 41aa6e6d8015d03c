/** The only place that turns a refusal or a fault into a response: HTTP, CONNECT, JSON-RPC or gRPC. */
import { ProxyError, statusOfCode } from "../../errors.ts";
import { hasField, isFieldValue, isToken } from "../../http/headers.ts";
import { http } from "../../net/node-http.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import { factKey } from "../../pipeline/facts.ts";
import type { Denial, Reply, ReplyFields, RpcRefusal } from "../../pipeline/decision.ts";
import { statusLine } from "../../wire/response-writer.ts";

/** The view of mcp-parser, as far as a response needs it. */
interface McpRequestFact {
  readonly method?: string;
  readonly rpcId?: unknown;
  readonly batch?: readonly McpRequestFact[];
}

const mcpFact = factKey<McpRequestFact>("mcp");
const jsonRpcErrorCode = -32_000;
const maxSaidChars = 200;

/** The denial for a fault. The response to an unknown fault shows nothing of it. */
export function denialOf(error: unknown): Denial {
  if (error instanceof ProxyError) {
    const message = error.code === "internal.fault" ? "internal error" : error.message;
    const { code, headers } = error;
    return { code, message, headers };
  }
  return { code: "internal.fault", message: "internal error" };
}

/** HTTP status of a denial: its own, else the table's. */
export function statusOf(denial: Denial): number {
  return denial.reply?.status ?? denial.status ?? statusOfCode(denial.code);
}

/** The plain form: `{error, message, description?, details?, plugin?}`. */
export function renderDenial(denial: Denial): Reply {
  if (denial.reply !== undefined) return denial.reply;
  const status = statusOf(denial);
  const reason = phraseOf(status, denial.message);
  return { ...jsonReply(status, serialise(denial), denial.headers), reason };
}

/** Many clients show no more of a refusal than this, above all where it answers a CONNECT (Go, git, wget, Python, Java). */
function phraseOf(status: number, message: string): string {
  const said = message.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, maxSaidChars);
  return `${standardPhrase(status)}: ${said}`;
}

function standardPhrase(status: number): string {
  return http.STATUS_CODES[status] ?? "Refused";
}

/**
 * The response to a refused request, in the form that its sender understands.
 *
 * An MCP request with an id gets HTTP 200 and a JSON-RPC error, because that is what its client shows to the model;
 * everything else, notifications included, gets the plain form.
 */
export function renderRefusal(denial: Denial, context: RequestContext): Reply {
  if (denial.reply !== undefined) return denial.reply;
  const rpc =
    denial.rpc ?? (context.flow.direction === "outbound" ? mcpRefusal(context) : undefined);
  if (rpc === undefined || rpc.ids.length === 0) return renderDenial(denial);
  const json = rpcErrors(denial, rpc);
  const accept = context.headers.get("accept")?.toLowerCase() ?? "";
  const isStreamOnly =
    /text\/event-stream/.test(accept) && !/application\/(?:json|\*)|\*\/\*/.test(accept);
  const status = rpc.status ?? 200;
  const headers = status < 400 ? withoutChallenge(denial.headers) : denial.headers;
  if (!isStreamOnly) return jsonReply(status, json, headers);
  return {
    status,
    headers: { "Content-Type": "text/event-stream", ...headers },
    body: Buffer.from(rpcErrorEvent(json)),
  };
}

/** A challenge in a success would send clients to log in at an origin that asked for nothing. */
function withoutChallenge(headers: Denial["headers"]): Denial["headers"] {
  if (headers === undefined) return undefined;
  const kept = Object.entries(headers).filter(
    ([name]) => !/^(?:www|proxy)-authenticate$/i.test(name),
  );
  return Object.fromEntries(kept);
}

/** In place of a response that was refused: plain, unless its plugin said that the client speaks JSON-RPC. */
export function renderResponseRefusal(denial: Denial, context: RequestContext): Reply {
  return denial.rpc === undefined ? renderDenial(denial) : renderRefusal(denial, context);
}

/** The refusal as an event of a stream that has begun; undefined where the client does not speak JSON-RPC. */
export function refusalEvent({ rpc, ...denial }: Denial): Buffer | undefined {
  return rpc === undefined || rpc.ids.length === 0
    ? undefined
    : Buffer.from(rpcErrorEvent(rpcErrors(denial, rpc)));
}

function rpcErrorEvent(json: string): string {
  return `event: message\ndata: ${json}\n\n`;
}

function mcpRefusal(context: RequestContext): RpcRefusal | undefined {
  if (!context.hasFacts) return undefined;
  const fact = context.facts.get(mcpFact);
  const calls = (fact?.batch ?? [fact]).filter((message) => message?.method !== undefined);
  const ids = calls.map((message) => message?.rpcId).filter(isCallId);
  return { ids, isBatch: fact?.batch !== undefined };
}

function isCallId(id: unknown): id is string | number {
  return typeof id === "string" || (typeof id === "number" && Number.isFinite(id));
}

function rpcErrors(denial: Denial, { ids, isBatch, code }: RpcRefusal): string {
  const errors = ids.map((id) => jsonRpcError(id, denial, code));
  return isBatch === true ? `[${errors.join(",")}]` : (errors[0] ?? jsonRpcError(null, denial));
}

/** A JSON-RPC 2.0 error frame; details that cannot be serialised are left out. */
export function jsonRpcError(
  id: string | number | null,
  denial: Denial,
  code: number = jsonRpcErrorCode,
): string {
  const frame = (data: unknown): string =>
    JSON.stringify({ jsonrpc: "2.0", id, error: { code, message: denial.message, data } });
  try {
    return frame(JSON.parse(serialise(denial, false)));
  } catch {
    return frame(undefined);
  }
}

function serialise(denial: Denial, withMessage = true): string {
  const { code, message, description, details, plugin, rule, approval } = denial;
  const body = {
    error: code,
    message: withMessage ? message : undefined,
    description,
    details,
    plugin,
    rule,
    approval: approval?.id,
    poll: approval?.poll,
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

/**
 * The fields of a reply as a flat list, one line for each value, with those of `more` that it has not itself. A plugin's reply
 * is not of the grammar of HTTP by birth: what cannot be written is left out, and the refusal arrives all the same.
 */
export function replyFields({ headers }: Pick<Reply, "headers">, more?: ReplyFields): string[] {
  const lines = Object.entries(headers).flatMap(([name, values]) =>
    [values].flat().flatMap((value) => (isToken(name) && isFieldValue(value) ? [name, value] : [])),
  );
  if (more === undefined) return lines;
  const added = Object.entries(more).filter(([name]) => !hasField(lines, name));
  return [...lines, ...replyFields({ headers: Object.fromEntries(added) })];
}

/** What clients of gRPC make of a status of HTTP without a grpc-status; UNKNOWN of every other one. */
const grpcStatuses: Readonly<Record<number, number>> = {
  400: 13,
  401: 16,
  403: 7,
  404: 12,
  429: 14,
  502: 14,
  503: 14,
  504: 14,
};

/**
 * The head of a refusal or a fault for a client of gRPC, which shows neither body nor reason of another response. A grpc-status
 * counts beside any status of HTTP (gRPC, HTTP to gRPC status code mapping).
 */
export function grpcFields({ status, reason, headers }: Reply, more?: ReplyFields): string[] {
  const { "Content-Type": _ofBody, ...kept } = headers;
  const message = (reason ?? standardPhrase(status)).replaceAll("%", "%25");
  const own = {
    "Content-Type": "application/grpc",
    "Grpc-Status": String(grpcStatuses[status] ?? 2),
    "Grpc-Message": message,
  };
  return replyFields({ headers: { ...own, ...kept } }, more);
}

/** RFC 9110 section 8.6: such a response has no content and says nothing of its length. */
export function hasContent({ status }: Pick<Reply, "status">): boolean {
  return status !== 204 && status !== 304;
}

/** A whole HTTP/1.1 message, for sockets that have no response object (CONNECT, malformed requests). */
export function rawReply(reply: Reply): Buffer {
  const head: string[] = [];
  const fields = replyFields(reply);
  for (let at = 0; at < fields.length; at += 2) {
    head.push(`${fields[at]}: ${fields[at + 1]}`);
  }
  head.push(`Content-Length: ${reply.body.length}`, "Connection: close");
  const text = `${statusLine(reply.status, reply.reason)}${head.join("\r\n")}\r\n\r\n`;
  return Buffer.concat([Buffer.from(text, "latin1"), reply.body]);
}
