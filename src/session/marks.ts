/** What one message carries that can be found again on another message of the same conversation. */
import { hash } from "node:crypto";
import type { RequestContext } from "../pipeline/context.ts";
import { maxSessionIdLength } from "./event.ts";
import { traceIdOf } from "../http/trace-context.ts";

/** The marks of one message; absent where it has none of the kind. */
export interface Marks {
  /** Value of the configured field. */
  readonly field?: string;
  /** W3C trace id. */
  trace?: string;
  /** Value of Mcp-Session-Id. */
  readonly mcp?: string;
  /** Digest of the bearer credential: whoever has it acts for the same caller. */
  readonly bearer?: string;
}

const maxFieldBytes = 4_096;

/** Reads the marks in one pass over the fields; undefined when there is none, which is the usual case. */
export function marksOf(context: RequestContext, fieldName: string | undefined): Marks | undefined {
  const { raw } = context.headers;
  let marks: { -readonly [Key in keyof Marks]: Marks[Key] } | undefined;
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at] ?? "";
    const { length } = name;
    // Lengths decide most comparisons: traceparent, authorization, mcp-session-id, the configured one.
    if (length !== 11 && length !== 13 && length !== 14 && length !== fieldName?.length) continue;
    const kind = kindOf(name.toLowerCase(), fieldName);
    if (kind === undefined) continue;
    const value = markOf(kind, raw[at + 1] ?? "");
    if (value === undefined) continue;
    marks ??= {};
    // A message that says two things of one kind is tied by neither.
    if (marks[kind] !== undefined && marks[kind] !== value) delete marks[kind];
    else marks[kind] = value;
  }
  return marks;
}

/** The session id that an answer assigns to the MCP conversation (its initialize answer, MCP "Session Management"). */
export function assignedMcpSession(context: RequestContext): string | undefined {
  return textMark(context.response?.headers.get("mcp-session-id") ?? "");
}

function kindOf(name: string, fieldName: string | undefined): keyof Marks | undefined {
  if (name === fieldName) return "field";
  if (name === "traceparent") return "trace";
  if (name === "authorization") return "bearer";
  return name === "mcp-session-id" ? "mcp" : undefined;
}

function markOf(kind: keyof Marks, value: string): string | undefined {
  if (kind === "trace") return traceIdOf(value);
  if (kind === "bearer") return bearerDigest(value);
  return textMark(value);
}

function textMark(value: string): string | undefined {
  const text = value.trim().slice(0, maxSessionIdLength);
  return text === "" ? undefined : text;
}

/** A digest, so that no credential lives longer here than its message. */
function bearerDigest(value: string): string | undefined {
  if (value.length > maxFieldBytes * 16 || !/^bearer /i.test(value)) return undefined;
  const token = value.slice(7).trim();
  return token === "" ? undefined : hash("sha256", token, "base64url");
}
