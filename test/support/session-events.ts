/** Reads session events over the session API. */
import { eventually } from "./eventually.ts";

/** A session event as clients see it. */
export interface SeenEvent {
  readonly sessionId: string;
  readonly direction: string;
  readonly phase: string;
  readonly requestId: string;
  readonly host: string;
  readonly httpPath?: string;
  readonly statusCode?: number;
  readonly mcp?: Readonly<Record<string, unknown>>;
  readonly a2a?: Readonly<Record<string, unknown>>;
  readonly inference?: Readonly<Record<string, unknown>>;
  readonly error?: { readonly kind: string; readonly code: string; readonly message: string };
  readonly invocations?: Readonly<
    Record<
      string,
      readonly { readonly plugin: string; readonly action: string; readonly reason: string }[]
    >
  >;
}

type Read = (path: string) => Promise<string>;

/** Every event of every session. */
export async function allEvents(read: Read): Promise<SeenEvent[]> {
  const { sessions } = JSON.parse(await read("/v1/sessions")) as { sessions: { id: string }[] };
  const events: SeenEvent[] = [];
  for (const { id } of sessions) {
    const path = `/v1/sessions/${encodeURIComponent(id)}`;
    events.push(...(JSON.parse(await read(path)) as { events: SeenEvent[] }).events);
  }
  return events;
}

/** Waits for an event. */
export function eventOf(read: Read, what: (event: SeenEvent) => boolean): Promise<SeenEvent> {
  return eventually(async () => (await allEvents(read)).find(what) ?? false);
}
