/** The session API of `:9094` (contract 4.10): what happened, as lists and as a live feed. */
import type { ServerResponse } from "node:http";
import { maxSessionIdLength, type SessionEvent } from "../session/event.ts";
import type { SessionStore } from "../session/store.ts";
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

/** What the session API shows. */
export interface SessionSources {
  readonly store: Pick<SessionStore, "list" | "get" | "subscribe">;
  pipelines(): PipelineView;
  /** Every plugin that could be configured; without it `/v1/plugins` is 404. */
  readonly plugins?: () => readonly PluginView[];
  /** Between comments on an idle feed; 30,000 when absent. */
  readonly heartbeatMs?: number;
}

const defaultHeartbeatMs = 30_000;
const maxStreams = 64;
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
          const session = store.get(rest.slice(0, maxSessionIdLength));
          if (session === undefined) return failure(404, "session.not-found", "no such session");
          const events = limit === undefined ? session.events : session.events.slice(-limit);
          const body = sessionJson(session.id, events, view);
          return { status: 200, contentType: "application/json", body };
        }),
    },
    {
      path: "/v1/events",
      handle: ({ query }) =>
        bounded(query, (_limit, view) => feeds.open(query.get("session") ?? "", view)),
    },
    { path: "/v1/pipeline", handle: () => json(sources.pipelines()) },
    {
      path: "/v1/plugins",
      handle: () =>
        sources.plugins === undefined
          ? failure(404, "plugins.not-found", "the plugin catalogue is not available")
          : json({ plugins: sources.plugins() }),
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

/** The open event streams, no more than {@link maxStreams}. */
class Feeds {
  readonly #store: SessionSources["store"];
  readonly #heartbeatMs: number;
  #count = 0;

  constructor(sources: SessionSources) {
    this.#store = sources.store;
    this.#heartbeatMs = sources.heartbeatMs ?? defaultHeartbeatMs;
  }

  open(session: string, view: EventView): AdminReply | AdminStream {
    if (this.#count >= maxStreams) {
      return failure(503, "proxy.overloaded", "too many event streams are open");
    }
    return { open: (response) => this.#feed(response, session, view) };
  }

  #feed(response: ServerResponse, session: string, view: EventView): void {
    this.#count += 1;
    response.writeHead(200, {
      "Content-Type": "text/event-stream",
      "Cache-Control": "no-store",
      "X-Content-Type-Options": "nosniff",
    });
    response.write(": ok\n\n");
    let id = 0;
    let reported = 0;
    let silentHeartbeats = 0;
    let taken = 0;
    const subscription = this.#store.subscribe(
      (event) => {
        id += 1;
        const missed = subscription.dropped - reported;
        reported += missed;
        // A comment: clients that do not care never see it.
        const note = missed === 0 ? "" : `: dropped ${missed}\n\n`;
        const data = eventJson(event, view);
        const isTaken = response.write(`${note}event: session-event\nid: ${id}\ndata: ${data}\n\n`);
        return isTaken ? undefined : drained(response);
      },
      session === "" ? {} : { session: session.slice(0, maxSessionIdLength) },
    );
    const heartbeat = setInterval(() => {
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
    response.on("close", () => {
      clearInterval(heartbeat);
      subscription.close();
      this.#count -= 1;
    });
  }
}
