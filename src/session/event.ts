/** One thing that happened to one message, in the shape of the session API. */
import { ownText } from "../bounded-map.ts";
import type { Identity, RequestContext, Tie } from "../pipeline/context.ts";
import type { Direction } from "../pipeline/flow.ts";
import type { Invocation } from "../pipeline/decision.ts";
import { sessionIdOf } from "./session-id.ts";

/** A request went on, a response came back, or a message was refused. */
export type EventPhase = "request" | "response" | "denied";

/** Why a message failed: by policy, by the other side, or by the proxy's own limits. */
export interface EventError {
  readonly kind: "policy" | "backend_error" | "blocked";
  readonly code: string;
  readonly message: string;
}

/** Who called, as far as the record shows it: no claims. */
export interface EventIdentity {
  readonly subject: string;
  readonly scopes?: readonly string[];
  readonly clientId?: string;
}

/** Mutual TLS, in the words of the Go program. */
export interface EventTls {
  readonly version: string;
  readonly cipherSuite: string;
  readonly peerSpiffeId: string;
}

/** The event as stored and served; absent means empty and names are the Go program's, for its clients. */
export interface SessionEvent {
  readonly sessionId: string;
  /** In the live feed: the session that the message turned out to belong to after its first event was shown. */
  readonly movedTo?: string;
  /** RFC 3339. */
  readonly at: string;
  readonly direction: Direction;
  readonly phase: EventPhase;
  /** How it is known to which session an outbound message belongs; absent where nothing tells. */
  readonly tiedBy?: Tie;
  /** Id of the flow: the same in the request's and in the response's event, and in the log. */
  readonly requestId: string;
  readonly host: string;
  readonly httpMethod?: string;
  readonly httpPath?: string;
  readonly mcp?: unknown;
  readonly a2a?: unknown;
  readonly inference?: unknown;
  /** What plugins published of their own, by plugin: facts under the name `<plugin>/event`. */
  readonly plugins?: Readonly<Record<string, unknown>>;
  readonly invocations?: Readonly<Partial<Record<Direction, readonly Invocation[]>>>;
  readonly identity?: EventIdentity;
  readonly statusCode?: number;
  readonly error?: EventError;
  /** Whole milliseconds: the Go program's clients decode an integer. */
  readonly durationMs?: number;
  /** Bytes of content, from the client and to it. */
  readonly bytesReceived?: number;
  readonly bytesSent?: number;
  /** The authenticated name of the agent, where the file has `callers`; the SPIFFE ID of a peer of `mtls`. */
  readonly caller?: string;
  /** The connection to a peer of `mtls`. */
  readonly tls?: EventTls;
  readonly tunnel?: true;
  /** Of an outbound request whose `host` names none: 80, for a request in the clear; else it is 443. */
  readonly port?: 80;
  /** Messages of a WebSocket, from the client and to it. */
  readonly messages?: { readonly received: number; readonly sent: number };
  /** Of a connection that was looked into, in TLS or in the clear: what was asked inside has events of its own. */
  readonly bridged?: true;
  /** The executable of the caller, where it was looked up. */
  readonly executable?: string;
}

/** What the caller knows about the moment that it records. */
export interface EventFacts {
  readonly phase: EventPhase;
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly statusCode?: number;
  readonly durationMs?: number;
  readonly bytesReceived?: number;
  readonly bytesSent?: number;
  readonly error?: EventError;
  readonly bridged?: boolean;
}

/** The session of messages that nothing ties to one. */
export const defaultSessionId = "default";

type Draft = { -readonly [Key in keyof SessionEvent]: SessionEvent[Key] };

/** Formats each millisecond once: under load many events share it, and its text. */
class Timestamps {
  #at = Number.NaN;
  #text = "";

  of(at: number): string {
    if (at !== this.#at) {
      this.#at = at;
      this.#text = new Date(at).toISOString();
    }
    return this.#text;
  }
}

const timestamps = new Timestamps();

/**
 * The record of one moment of one message. Bodies and credentials are never part of it.
 *
 * It is made twice per message: what every event has is in one literal, which is one allocation; the rest is assigned,
 * because spreading optional fields costs three times as much.
 */
export function eventOf(context: RequestContext, facts: EventFacts): SessionEvent {
  const { flow, identity } = context;
  const event = draftOf(context, facts);
  if (context.hasFacts) {
    const { facts: views } = context;
    for (const name of ["mcp", "a2a", "inference"] as const) {
      const view = views.get(name);
      if (view !== undefined) event[name] = view;
    }
    const plugins = publishedBy(views);
    if (plugins !== undefined) event.plugins = plugins;
  }
  const invocations = stepsOf(context, facts.phase);
  if (invocations.length > 0) event.invocations = { [flow.direction]: invocations };
  if (identity !== undefined) event.identity = shown(identity);
  if (context.tiedBy !== undefined) event.tiedBy = context.tiedBy;
  const { caller, tls, process: holder } = flow.client;
  const peer = tls?.peer ?? context.onward?.peer;
  if (caller !== undefined) event.caller = caller;
  if (holder?.kind === "resolved") event.executable = holder.executable;
  if (facts.bridged === true) event.bridged = true;
  if (isUsualPlain(context)) event.port = 80;
  if (peer !== undefined) {
    const { version, cipherSuite, spiffeId: peerSpiffeId } = peer;
    event.tls = { version, cipherSuite, peerSpiffeId };
  }
  if (facts.error !== undefined) event.error = facts.error;
  const { messages } = context;
  if (messages !== undefined && facts.phase !== "request")
    event.messages = { received: messages.received, sent: messages.sent };
  return event;
}

/** What a request's and a response's event have, in their literals; anything else by assignment. */
function draftOf(context: RequestContext, facts: EventFacts): Draft {
  const { flow, path, pathname: httpPath } = context;
  const httpMethod = ownText(context.method);
  const { phase, statusCode, bytesReceived, bytesSent } = facts;
  const { direction, id: requestId } = flow;
  const host = shownHost(context);
  const sessionId =
    context.sessionId === undefined ? defaultSessionId : sessionIdOf(context.sessionId);
  const at = timestamps.of(facts.at);
  // Whole milliseconds: the Go program's clients decode an integer.
  const durationMs = facts.durationMs === undefined ? undefined : Math.round(facts.durationMs);
  if (context.stage === "request" && httpMethod !== "" && path !== "") {
    const asked = { sessionId, at, direction, phase, requestId, host, httpMethod, httpPath };
    if (statusCode === undefined && durationMs === undefined) return asked;
    if (statusCode !== undefined && durationMs !== undefined) {
      if (bytesReceived !== undefined && bytesSent !== undefined) {
        return {
          sessionId,
          at,
          direction,
          phase,
          requestId,
          host,
          httpMethod,
          httpPath,
          statusCode,
          bytesReceived,
          bytesSent,
          durationMs,
        };
      }
    }
  }
  return unusual(
    { sessionId, at, direction, phase, requestId, host },
    { ...facts, durationMs },
    context,
  );
}

/** As the client wrote it, or would have in a Host field: without the port where it is the scheme's own. */
function shownHost({ flow, host, stage, destination }: RequestContext): string {
  return flow.direction === "outbound" && stage === "request"
    ? destination.hostHeader
    : ownText(host);
}

/** Whether the host is shown without its port, and that is not 443. */
function isUsualPlain({ flow, stage, destination }: RequestContext): boolean {
  const { port, scheme } = destination;
  return port === 80 && scheme === "http" && stage === "request" && flow.direction === "outbound";
}

/** An event of a tunnel, or one that lacks what others have. */
function unusual(
  draft: Draft,
  facts: Omit<EventFacts, "durationMs"> & { readonly durationMs: number | undefined },
  { stage, method, path, pathname }: RequestContext,
): Draft {
  if (stage === "connect") draft.tunnel = true;
  if (method !== "") draft.httpMethod = ownText(method);
  if (path !== "") draft.httpPath = pathname;
  if (facts.statusCode !== undefined) draft.statusCode = facts.statusCode;
  if (facts.bytesReceived !== undefined) draft.bytesReceived = facts.bytesReceived;
  if (facts.bytesSent !== undefined) draft.bytesSent = facts.bytesSent;
  if (facts.durationMs !== undefined) draft.durationMs = facts.durationMs;
  return draft;
}

const publicSuffix = "/event";

function publishedBy(facts: ReadonlyMap<string, unknown>): Record<string, unknown> | undefined {
  let plugins: Record<string, unknown> | undefined;
  for (const [name, fact] of facts) {
    if (!name.endsWith(publicSuffix)) continue;
    plugins ??= {};
    plugins[name.slice(0, -publicSuffix.length)] = fact;
  }
  return plugins;
}

/**
 * A request event carries what was decided before sending, a response event what came after; a refusal belongs to
 * the half that was being judged.
 */
function stepsOf(context: RequestContext, eventPhase: EventPhase): readonly Invocation[] {
  const { invocations } = context;
  if (invocations.length === 0) return invocations;
  const answered = eventPhase === "denied" && context.response !== undefined;
  const phase = eventPhase === "response" || answered ? "response" : "request";
  return invocations.filter((invocation) => invocation.phase === phase);
}

function shown(identity: Identity): EventIdentity {
  return {
    subject: identity.subject,
    ...(identity.scopes.length === 0 ? {} : { scopes: identity.scopes }),
    ...(identity.clientId === undefined ? {} : { clientId: identity.clientId }),
  };
}
