/** One thing that happened to one message, in the shape of the session API (contract 4.10). */
import type { RequestContext } from "../pipeline/context.ts";
import type { Direction } from "../pipeline/flow.ts";
import type { Invocation } from "../pipeline/decision.ts";

/** A request went on, an answer came back, or a message was refused. */
export type EventPhase = "request" | "response" | "denied";

/** Why a message failed: by policy, by the other side, or by the proxy's own limits. */
export interface EventError {
  readonly kind: "policy" | "backend_error" | "blocked";
  readonly code: string;
  readonly message: string;
}

/** The event as stored and served; absent means empty and names are the Go program's, for its clients. */
export interface SessionEvent {
  readonly sessionId: string;
  /** RFC 3339. */
  readonly at: string;
  readonly direction: Direction;
  readonly phase: EventPhase;
  /** Id of the flow: the same in the request's and in the response's event, and in the log. */
  readonly requestId: string;
  readonly host: string;
  readonly httpMethod?: string;
  readonly httpPath?: string;
  readonly mcp?: unknown;
  readonly a2a?: unknown;
  readonly inference?: unknown;
  readonly invocations?: Readonly<Partial<Record<Direction, readonly Invocation[]>>>;
  readonly identity?: {
    readonly subject: string;
    readonly scopes?: readonly string[];
    readonly clientId?: string;
  };
  readonly statusCode?: number;
  readonly error?: EventError;
  /** Whole milliseconds: the Go program's clients decode an integer. */
  readonly durationMs?: number;
  readonly tunnel?: true;
}

/** What the caller knows about the moment that it records. */
export interface EventFacts {
  readonly phase: EventPhase;
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly statusCode?: number;
  readonly durationMs?: number;
  readonly error?: EventError;
}

/** The session of messages that nothing ties to one. */
export const defaultSessionId = "default";

/** Longer ids are cut (contract 5). */
export const maxSessionIdLength = 256;

/** The record of one moment of one message. Bodies and credentials are never part of it. */
export function eventOf(context: RequestContext, facts: EventFacts): SessionEvent {
  const { flow, identity } = context;
  // A request event carries what was decided before sending, a response event what came after; a refusal belongs to
  // the half that was being judged.
  const answered = facts.phase === "denied" && context.response !== undefined;
  const phase = facts.phase === "response" || answered ? "response" : "request";
  const invocations = context.invocations.filter((invocation) => invocation.phase === phase);
  return {
    sessionId: (context.sessionId ?? defaultSessionId).slice(0, maxSessionIdLength),
    at: new Date(facts.at).toISOString(),
    direction: flow.direction,
    phase: facts.phase,
    requestId: flow.id,
    host: context.host,
    ...(context.stage === "connect" ? { tunnel: true as const } : {}),
    ...(context.method === "" ? {} : { httpMethod: context.method }),
    ...(context.path === "" ? {} : { httpPath: context.pathname }),
    ...factsOf(context),
    ...(invocations.length === 0 ? {} : { invocations: { [flow.direction]: invocations } }),
    ...(identity === undefined
      ? {}
      : {
          identity: {
            subject: identity.subject,
            ...(identity.scopes.length === 0 ? {} : { scopes: identity.scopes }),
            ...(identity.clientId === undefined ? {} : { clientId: identity.clientId }),
          },
        }),
    ...(facts.statusCode === undefined ? {} : { statusCode: facts.statusCode }),
    ...(facts.error === undefined ? {} : { error: facts.error }),
    ...(facts.durationMs === undefined ? {} : { durationMs: Math.round(facts.durationMs) }),
  };
}

function factsOf(context: RequestContext): Pick<SessionEvent, "mcp" | "a2a" | "inference"> {
  const view: { mcp?: unknown; a2a?: unknown; inference?: unknown } = {};
  for (const name of ["mcp", "a2a", "inference"] as const) {
    const fact = context.facts.get(name);
    if (fact !== undefined) view[name] = fact;
  }
  return view;
}
