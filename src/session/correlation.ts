/** What one message carries that can be found again on another message of the same conversation. */
import { hash } from "node:crypto";
import type { RequestContext, Tie } from "../pipeline/context.ts";
import { sessionIdOf } from "./session-id.ts";
import { startTrace, traceIdOf } from "../http/trace-context.ts";
import { textOf } from "./turn.ts";

/** What ties one message to others; a kind that it does not carry is absent. */
export interface Correlation {
  /** Value of the configured field. */
  readonly field?: string;
  /** W3C trace id. */
  trace?: string;
  /** Value of Mcp-Session-Id. */
  readonly mcp?: string;
  /** Digest of the bearer credential: whoever has it acts for the same caller. */
  readonly bearer?: string | undefined;
}

const maxFieldBytes = 4_096;

/** Reads it in one pass over the fields; undefined when there is nothing, which is the usual case. */
export function correlationOf(
  context: RequestContext,
  fieldName: string | undefined,
): Correlation | undefined {
  const { raw } = context.headers;
  let correlation: { -readonly [Key in keyof Correlation]: Correlation[Key] } | undefined;
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at] ?? "";
    const { length } = name;
    // Lengths decide most comparisons: traceparent, authorization, mcp-session-id, the configured one.
    if (length !== 11 && length !== 13 && length !== 14 && length !== fieldName?.length) continue;
    const kind = kindOf(name.toLowerCase(), fieldName);
    if (kind === undefined) continue;
    const value = valueOf(kind, raw[at + 1] ?? "");
    if (value === undefined) continue;
    correlation ??= {};
    // A message that says two things of one kind is tied by neither.
    if (correlation[kind] !== undefined && correlation[kind] !== value) delete correlation[kind];
    else correlation[kind] = value;
  }
  return correlation;
}

/** The session id that a response assigns to the MCP conversation (the one to initialize, MCP "Session Management"). */
export function assignedMcpSession(context: RequestContext): string | undefined {
  return textValue(context.response?.headers.get("mcp-session-id") ?? "");
}

function kindOf(name: string, fieldName: string | undefined): keyof Correlation | undefined {
  if (name === fieldName) return "field";
  if (name === "traceparent") return "trace";
  if (name === "authorization") return "bearer";
  return name === "mcp-session-id" ? "mcp" : undefined;
}

function valueOf(kind: keyof Correlation, value: string): string | undefined {
  if (kind === "trace") return traceIdOf(value);
  if (kind === "bearer") return bearerDigest(value);
  return textValue(value);
}

function textValue(value: string): string | undefined {
  const text = sessionIdOf(value.trim());
  return text === "" ? undefined : text;
}

/** A digest, so that no credential is kept longer than its message. */
function bearerDigest(value: string): string | undefined {
  if (value.length > maxFieldBytes * 16 || !/^bearer /i.test(value)) return undefined;
  const token = value.slice(7).trim();
  return token === "" ? undefined : hash("sha256", token, "base64url");
}

/** A value by which messages find each other, and what kind of value it is. */
export type MarkedKey = readonly [key: string, tie: Tie];

/** In the order in which they are believed. */
export function keysOf(correlation: Correlation | undefined): MarkedKey[] {
  if (correlation === undefined) return [];
  const { field, trace, bearer } = correlation;
  const keys: MarkedKey[] = [];
  if (field !== undefined) keys.push([`field ${field}`, "header"]);
  if (trace !== undefined) keys.push([`trace ${trace}`, "trace"]);
  if (bearer !== undefined) keys.push([`bearer ${bearer}`, "bearer"]);
  return keys;
}

/** Ids of MCP sessions are the server's: two servers may give the same one. */
export function mcpKey(authority: string, id: string): string {
  return `mcp ${authority} ${id}`;
}

/** The correlation, with a trace that begins here where the message has none. */
export function withTrace(
  context: RequestContext,
  correlation: Correlation | undefined,
): Correlation | undefined {
  if (correlation?.trace !== undefined) return correlation;
  const { traceId, traceparent } = startTrace();
  context.headers.set("traceparent", traceparent);
  return { ...correlation, trace: traceId };
}

/** What a message calls its conversation, where no message to the agent is known that it follows from. */
export function ownNameOf(
  context: RequestContext,
  correlation: Correlation | undefined,
): string | undefined {
  const a2a = context.hasFacts ? textOf(context.facts.get("a2a"), "sessionId") : undefined;
  const name = correlation?.field ?? a2a ?? correlation?.mcp;
  return name === undefined ? undefined : sessionIdOf(name);
}
