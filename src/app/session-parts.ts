/** The session store of the process and what fills it, from the `session` block. */
import { durationMs } from "../config/duration.ts";
import type { Config } from "../config/presets.ts";
import { Attribution } from "../session/attribution.ts";
import { SessionRecorder } from "../session/recorder.ts";
import { SessionStore } from "../session/store.ts";

/** What sessions consist of; made once, because events are kept over reloads. */
export interface SessionParts {
  readonly store: SessionStore;
  readonly recorder: SessionRecorder;
  close(): void;
}

/** Undefined where `session.enabled` is false. */
export function makeSessionParts({ session }: Config): SessionParts | undefined {
  if (!session.enabled) return undefined;
  const ttlMs = durationMs(session.ttl);
  const store = new SessionStore({
    ttlMs,
    maxEvents: session.max_events,
    maxSessions: session.max_sessions,
  });
  const attribution = new Attribution({
    store,
    ttlMs,
    addTraceparent: session.add_traceparent,
    ...(session.header === undefined ? {} : { field: session.header }),
  });
  return {
    store,
    recorder: new SessionRecorder({ events: store, attribution }),
    close: () => {
      attribution.close();
      store.close();
    },
  };
}
