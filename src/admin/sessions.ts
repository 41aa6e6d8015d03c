/** The session API of `:9094`: what happened, as lists and as a live feed. */
import type { ServerResponse } from "node:http";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { SessionEvent } from "../session/event.ts";
import { sessionIdOf } from "../session/session-id.ts";
import type { StoredEvent } from "../session/session.ts";
import type { SessionStore } from "../session/store.ts";
import type { Usage } from "../session/usage.ts";
import type { PipelineView, PluginView } from "./catalogue.ts";
import { eventJson, type EventView } from "./event-json.ts";
import {
  drained,
  failure,
  json,
  text,
  type AdminReply,
  type AdminRoute,
  type AdminStream,
} from "./server.ts";
import { usageReply } from "./usage.ts";

/** What the session API shows. */
export interface SessionSources {
  readonly store: Pick<SessionStore, "list" | "get" | "subscribe" | "after">;
  readonly usage: Pick<Usage, "snapshot">;
  pipelines(): Promise<PipelineView>;
  /** Every plugin that could be configured; without it `/v1/plugins` is 404. */
  readonly plugins?: () => Promise<readonly PluginView[]>;
  /** Between comments on an idle feed; 30,000 when absent. */
  readonly heartbeatMs?: number;
}

const defaultHeartbeatMs = 30_000;
const maxStreams = 64;
/** Events that wait for one slow reader. */
const maxQueue = 1_024;
const maxChunkEvents = 256;
const maxChunkBytes = 262_144;
/** A reader that took nothing for this many heartbeats is dead. */
const deadAfterHeartbeats = 4;

/** Routes of the session API. */
export function sessionRoutes(sources: SessionSources): readonly AdminRoute[] {
  const { store } = sources;
  const feeds = new Feeds(sources);
  return [
    { path: "/healthz", isOpen: true, handle: () => text("ok\n") },
    {
      path: "/v1/sessions",
      handle: ({ query }) =>
        bounded(query, (limit) => json({ sessions: store.list().slice(0, limit) })),
    },
    {
      path: "/v1/sessions/",
      handle: ({ rest, query }) =>
        bounded(query, (limit, view) => {
          const session = store.get(sessionIdOf(rest));
          if (session === undefined) return failure(404, "session.not-found", "no such session");
          const events = limit === undefined ? session.events : session.events.slice(-limit);
          const body = sessionJson(session.id, events, view);
          return { status: 200, contentType: "application/json", body };
        }),
    },
    {
      path: "/v1/events",
      handle: ({ query, lastEventId }) =>
        bounded(query, (limit, view) => {
          const session = sessionIdOf(query.get("session") ?? "") || undefined;
          return feeds.open({ view, start: startOf(store, session, lastEventId, limit), session });
        }),
    },
    { path: "/v1/usage", handle: ({ query }) => usageReply(sources.usage, query) },
    { path: "/v1/pipeline", handle: async () => json(await sources.pipelines()) },
    {
      path: "/v1/plugins",
      handle: async () =>
        sources.plugins === undefined
          ? failure(404, "plugins.not-found", "the plugin catalogue is not available")
          : json({ plugins: await sources.plugins() }),
    },
  ];
}

/** Reads `limit` (a positive whole number) and `view` before the route does its work. */
function bounded<T extends AdminReply | AdminStream>(
  query: URLSearchParams,
  answer: (limit: number | undefined, view: EventView) => T,
): T | AdminReply {
  const limit = query.get("limit");
  if (limit !== null && !/^[1-9]\d{0,8}$/.test(limit)) {
    return failure(400, "request.malformed", "limit must be a positive whole number");
  }
  const view = query.get("view") ?? "full";
  if (view !== "full" && view !== "summary") {
    return failure(400, "request.malformed", "view must be full or summary");
  }
  return answer(limit === null ? undefined : Number(limit), view);
}

function* sessionJson(
  id: string,
  events: readonly SessionEvent[],
  view: EventView,
): Generator<string> {
  yield `{"id":${JSON.stringify(id)},"events":[`;
  for (const [index, event] of events.entries()) {
    yield `${index === 0 ? "" : ","}${eventJson(event, view)}`;
  }
  yield "]}\n";
}

/** The event from which a feed goes on: after the last one that its reader had, or N events back; undefined: new ones only. */
function startOf(
  store: SessionSources["store"],
  session: string | undefined,
  lastEventId: string | undefined,
  limit: number | undefined,
): number | undefined {
  if (lastEventId !== undefined && /^\d{1,15}$/.test(lastEventId)) return Number(lastEventId);
  if (limit === undefined) return undefined;
  const oldest = store.after(0, session).events.at(-limit) ?? store.after(0, session).events[0];
  return oldest === undefined ? undefined : oldest.sequence - 1;
}

/** One feed as it was asked for. */
interface FeedRequest {
  readonly session?: string | undefined;
  readonly view: EventView;
  /** Kept events after this one are sent first. */
  readonly start: number | undefined;
}

/** The open event streams, no more than {@link maxStreams}. */
class Feeds {
  readonly #store: SessionSources["store"];
  readonly #heartbeatMs: number;
  #count = 0;

  constructor(sources: SessionSources) {
    this.#store = sources.store;
    this.#heartbeatMs = sources.heartbeatMs ?? defaultHeartbeatMs;
  }

  open(request: FeedRequest): AdminReply | AdminStream {
    if (this.#count >= maxStreams) {
      return failure(503, "proxy.overloaded", "too many event streams are open");
    }
    return (response) => this.#feed(response, request);
  }

  #feed(response: ServerResponse, request: FeedRequest): void {
    this.#count += 1;
    response.writeHead(200, {
      "Content-Type": "text/event-stream",
      "Cache-Control": "no-store",
      "X-Content-Type-Options": "nosniff",
    });
    response.write(": ok\n\n");
    const heartbeat = this.#heartbeat(response);
    response.on("close", () => {
      clearInterval(heartbeat);
      this.#count -= 1;
    });
    if (request.start === undefined) this.#follow(response, request);
    else void this.#replay(response, request, request.start);
  }

  /** Sends what is kept, some of it at a time, and goes on with what is new when nothing is left. */
  async #replay(response: ServerResponse, request: FeedRequest, start: number): Promise<void> {
    let cursor = start;
    while (!response.destroyed) {
      const { events, missed } = this.#store.after(cursor, request.session);
      const chunk = chunkOf(events);
      const last = chunk.at(-1);
      // Without a turn in between, so that no event falls into the gap.
      if (last === undefined) {
        this.#follow(response, request);
        return;
      }
      await send(response, droppedNote(missed));
      for (const stored of chunk) await send(response, frameOf(stored, request.view));
      cursor = last.sequence;
      await nextTurn();
    }
  }

  #follow(response: ServerResponse, { session, view }: FeedRequest): void {
    let reported = 0;
    const subscription = this.#store.subscribe(
      (stored) => {
        const missed = subscription.dropped - reported;
        reported += missed;
        return send(response, droppedNote(missed) + frameOf(stored, view));
      },
      { maxQueue, session },
    );
    response.on("close", () => subscription.close());
  }

  #heartbeat(response: ServerResponse): NodeJS.Timeout {
    let silentHeartbeats = 0;
    let taken = 0;
    return setInterval(() => {
      if (!response.writableNeedDrain) {
        silentHeartbeats = 0;
        response.write(": heartbeat\n\n");
        return;
      }
      const now = response.socket?.bytesWritten ?? 0;
      silentHeartbeats = now === taken ? silentHeartbeats + 1 : 0;
      taken = now;
      if (silentHeartbeats >= deadAfterHeartbeats) response.destroy();
    }, this.#heartbeatMs).unref();
  }
}

function frameOf({ sequence, event }: StoredEvent, view: EventView): string {
  return `event: session-event\nid: ${sequence}\ndata: ${eventJson(event, view)}\n\n`;
}

/** A comment: clients that do not care never see it. */
function droppedNote(missed: number): string {
  return missed === 0 ? "" : `: dropped ${missed}\n\n`;
}

/** Few enough events that a slow reader does not keep alive what the store has given up. */
function chunkOf(events: readonly StoredEvent[]): readonly StoredEvent[] {
  let bytes = 0;
  const end = events.findIndex((stored, index) => {
    bytes += stored.bytes;
    return index > 0 && (index >= maxChunkEvents || bytes > maxChunkBytes);
  });
  return end === -1 ? events : events.slice(0, end);
}

async function send(response: ServerResponse, text: string): Promise<void> {
  if (text !== "" && !response.write(text)) await drained(response);
}
