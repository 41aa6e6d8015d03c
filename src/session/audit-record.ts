/** One line of the decision log: what was decided, by whom, and the digest that chains it to the line before. */
import { hash } from "node:crypto";
import type { RequestContext } from "../pipeline/context.ts";
import type { Invocation } from "../pipeline/decision.ts";
import type { SessionEvent } from "./event.ts";

/** What the first line of a chain follows. */
export const firstLink = "0".repeat(64);

/** A place in the chain. */
export interface Link {
  readonly sequence: number;
  readonly hash: string;
}

const closing = /,"hash":"([\da-f]{64})"\}$/;

/** What is written of one decision, without its place in the chain. */
export function decisionOf(event: SessionEvent, context: RequestContext): object {
  const { identity, error, httpMethod, httpPath } = event;
  const { client } = context.flow;
  return {
    at: event.at,
    decision: isRefused(event) ? "deny" : "allow",
    direction: event.direction,
    session: event.sessionId,
    request: event.requestId,
    client: client.address,
    ...(client.process?.executable ? { binary: client.process.executable } : {}),
    subject: identity?.subject,
    clientId: identity?.clientId,
    host: context.host,
    method: httpMethod,
    path: httpPath,
    status: event.statusCode,
    code: error?.code,
    reason: error?.message,
    steps: stepsOf(event).map(({ plugin, action, reason, cause, details, shadow }) => {
      return { plugin, action, reason, cause, details, shadow };
    }),
  };
}

/** Whether the event is of a refusal: of the request, or of the response by one of its steps. */
export function isRefused(event: SessionEvent): boolean {
  if (event.phase !== "response") return event.phase === "denied";
  return stepsOf(event).some(({ action, shadow }) => action === "deny" && shadow !== true);
}

function stepsOf({ invocations }: SessionEvent): readonly Invocation[] {
  return [...(invocations?.inbound ?? []), ...(invocations?.outbound ?? [])];
}

/** The line, and the link that the next one follows. The digest is over every byte of the line before `,"hash"`. */
export function chained(
  previous: Link,
  facts: object,
): { readonly line: string; readonly link: Link } {
  const sequence = previous.sequence + 1;
  const text = JSON.stringify({ sequence, previous: previous.hash, ...facts }).slice(0, -1);
  const digest = hash("sha256", text);
  return { line: `${text},"hash":"${digest}"}`, link: { sequence, hash: digest } };
}

/** The link of a line whose digest is right, and the digest that it follows; undefined for any other text. */
export function linkOf(line: string): (Link & { readonly previous: string }) | undefined {
  const found = closing.exec(line);
  if (found === null) return undefined;
  const [, digest = ""] = found;
  if (hash("sha256", line.slice(0, found.index)) !== digest) return undefined;
  const { sequence, previous } = parsed(line);
  if (typeof sequence !== "number" || typeof previous !== "string") return undefined;
  return { sequence, previous, hash: digest };
}

function parsed(line: string): { readonly sequence?: unknown; readonly previous?: unknown } {
  try {
    return JSON.parse(line) as { sequence: unknown; previous: unknown };
  } catch {
    return {};
  }
}
