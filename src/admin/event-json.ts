/** Session events as text, in full or as a summary without what parsers saw of bodies. */
import type { SessionEvent } from "../session/event.ts";

/** `summary` leaves the payloads of parsers out (a full inference event can be hundreds of kilobytes). */
export type EventView = "full" | "summary";

const maxSummaryText = 256;

/** One event as JSON. What cannot be serialised is left out rather than failing the whole response. */
export function eventJson(event: SessionEvent, view: EventView): string {
  try {
    return JSON.stringify(view === "summary" ? summaryOf(event) : wireOf(event));
  } catch {
    return JSON.stringify(summaryOf(event));
  }
}

/** An event as clients of the Go program read it. */
type WireEvent = Omit<SessionEvent, "error"> & {
  readonly error?:
    SessionEvent["error"] | { readonly kind: "backend_error"; readonly code: string };
};

function wireOf(event: SessionEvent): WireEvent {
  const { phase, statusCode = 0, inference, error } = event;
  const isRefusal = phase === "response" && statusCode >= 400 && error === undefined;
  return {
    ...withTexts(event),
    ...(isRefusal ? { error: { kind: "backend_error", code: String(statusCode) } } : {}),
    // Every call of a model is one.
    ...(inference === undefined ? {} : { inference: { ...inference, isAction: true } }),
  };
}

/** They decode an invocation's details as text values. */
function withTexts(event: SessionEvent): SessionEvent {
  const { invocations } = event;
  if (invocations === undefined) return event;
  const texts = (list: (typeof invocations)["inbound"]): object[] =>
    (list ?? []).map((invocation) =>
      invocation.details === undefined
        ? invocation
        : {
            ...invocation,
            details: Object.fromEntries(
              Object.entries(invocation.details).map(([key, value]) => [key, String(value)]),
            ),
          },
    );
  const shown = Object.fromEntries(
    Object.entries(invocations).map(([direction, list]) => [direction, texts(list)]),
  );
  return { ...event, invocations: shown };
}

function summaryOf(event: SessionEvent): WireEvent {
  const { mcp, a2a, inference, ...rest } = wireOf(event);
  return {
    ...rest,
    ...(mcp === undefined ? {} : { mcp: { ...scalarsOf(mcp), ...toolOf(mcp) } }),
    ...(a2a === undefined ? {} : { a2a: scalarsOf(a2a) }),
    ...(inference === undefined
      ? {}
      : { inference: { ...scalarsOf(inference), ...toolsOf(inference) } }),
  };
}

/** The names of the tools that a model asks for, without their arguments. */
function toolsOf(inference: unknown): { readonly tools?: string } {
  const { toolCalls } = inference as { readonly toolCalls?: unknown };
  if (!Array.isArray(toolCalls)) return {};
  const names = toolCalls.flatMap(({ name }: { readonly name?: unknown }) =>
    typeof name === "string" ? [name] : [],
  );
  return names.length === 0 ? {} : { tools: names.join(", ").slice(0, maxSummaryText) };
}

/** The name of the tool that is called; it stands among the arguments, which are left out. */
function toolOf(mcp: unknown): { readonly tool?: string } {
  const { params } = mcp as { readonly params?: { readonly name?: unknown } | undefined };
  const name = params?.name;
  return typeof name === "string" ? { tool: name.slice(0, maxSummaryText) } : {};
}

/** Method, model, token counts and the like; not messages, arguments and results. */
function scalarsOf(view: unknown): Record<string, string | number | boolean> {
  const scalars: Record<string, string | number | boolean> = {};
  if (typeof view !== "object" || view === null) return scalars;
  for (const [key, value] of Object.entries(view)) {
    if (typeof value === "string") scalars[key] = value.slice(0, maxSummaryText);
    else if (typeof value === "number" || typeof value === "boolean") scalars[key] = value;
  }
  return scalars;
}
