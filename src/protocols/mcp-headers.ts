/**
 * Fields that repeat what the body says (revision 2026-07-28 of MCP): who routes or limits by them must see the call
 * that the server runs.
 */
import type { HeaderList } from "../http/headers.ts";
import { objectOf } from "../http/json-access.ts";
import type { RpcBody } from "../http/json-rpc.ts";

/** HeaderMismatch of the specification. */
export const headerMismatch = -32_020;

/** Which parameter Mcp-Name repeats. */
const nameSources: ReadonlyMap<string, string> = new Map([
  ["tools/call", "name"],
  ["prompts/get", "name"],
  ["resources/read", "uri"],
  ["resources/subscribe", "uri"],
  ["resources/unsubscribe", "uri"],
  ["tasks/get", "taskId"],
  ["tasks/update", "taskId"],
  ["tasks/cancel", "taskId"],
]);

const versionKey = "io.modelcontextprotocol/protocolVersion";
const paramPrefix = "mcp-param-";

/** Why the fields and the body disagree, in words; undefined when they agree or do not meet. */
export function headerDisagreement(headers: HeaderList, body: RpcBody): string | undefined {
  for (const field of ["Mcp-Method", "Mcp-Name", "MCP-Protocol-Version", "Mcp-Session-Id"]) {
    if (headers.getAll(field).length > 1) return `${field} is there twice`;
  }
  const method = headers.get("mcp-method");
  const name = headers.get("mcp-name");
  if (body.kind === "batch") {
    return method === undefined && name === undefined
      ? undefined
      : "Mcp-Method and Mcp-Name do not go with a batch";
  }
  if (!("method" in body)) {
    return method === undefined ? undefined : "Mcp-Method does not go with an answer";
  }
  const params = objectOf(body.params);
  if (method !== undefined && method !== body.method) {
    return "Mcp-Method is not the method of the body";
  }
  const source = nameSources.get(body.method);
  if (name !== undefined && (source === undefined || decoded(name) !== params[source])) {
    return `Mcp-Name is not what ${body.method.slice(0, 64)} names in the body`;
  }
  const version = headers.get("mcp-protocol-version");
  const stated = objectOf(params["_meta"])[versionKey];
  if (version !== undefined && stated !== undefined && stated !== version) {
    return "MCP-Protocol-Version is not the version of the body";
  }
  return paramDisagreement(headers, params["arguments"]);
}

/** Mcp-Param-* repeats arguments; which one is in the server's schema, so it must be one of them. */
function paramDisagreement(headers: HeaderList, args: unknown): string | undefined {
  let values: Set<string> | undefined;
  for (const [field, value] of headers) {
    if (!field.toLowerCase().startsWith(paramPrefix)) continue;
    values ??= scalarsIn(args);
    const text = decoded(value);
    if (text === undefined || !(values.has(text) || values.has(numeral(text)))) {
      return `${field.slice(0, 64)} is no argument of the body`;
    }
  }
  return undefined;
}

/** 42.0 and 42 are the same number. */
function numeral(text: string): string {
  return /^-?[0-9]{1,20}(?:\.[0-9]{1,20})?$/.test(text) ? String(Number(text)) : text;
}

function scalarsIn(args: unknown): Set<string> {
  const found = new Set<string>();
  const pending: unknown[] = [args];
  while (pending.length > 0) {
    const value = pending.pop();
    if (typeof value === "object" && value !== null) {
      for (const member of Object.values(value)) pending.push(member);
    } else if (typeof value === "string") found.add(value);
    else if (typeof value === "number" || typeof value === "boolean") found.add(String(value));
  }
  return found;
}

const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** Values that do not fit a field are written `=?base64?…?=`; undefined for what is not canonical. */
function decoded(value: string): string | undefined {
  const coded = /^=\?base64\?(.*)\?=$/.exec(value)?.[1];
  if (coded === undefined) return value;
  if (!base64.test(coded)) return undefined;
  const text = Buffer.from(coded, "base64").toString("utf8");
  return Buffer.from(text).toString("base64") === coded ? text : undefined;
}
