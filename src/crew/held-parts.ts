/** The parts of a thread that another thread holds: state and sessions, as seen from here. */
import type { HeldParts } from "../app/process-parts.ts";
import {
  contentOf,
  type SessionParts,
  type SessionServices,
  sharedTies,
} from "../app/session-parts.ts";
import { logoutsIn, type StateParts } from "../app/state-parts.ts";
import type { Config } from "../config/presets.ts";
import { durationMs } from "../duration.ts";
import { Attribution } from "../session/attribution.ts";
import { Decisions } from "../session/audit-log.ts";
import { type EventSink, SessionRecorder } from "../session/recorder.ts";
import { RemoteStore } from "../state/remote-store.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Channel } from "../threads/channel.ts";
import type { ControlCalls, StartOrder, ThreadCalls } from "./calls.ts";
import type { Outbox } from "./outbox.ts";

/** Beside the limit that the store itself has. */
const marginMs = 1_000;

/** The stores of the thread in control, by name. */
export class HeldStores {
  readonly #channel: Channel<ControlCalls, ThreadCalls>;
  readonly #limitMs: number;
  readonly #stores = new Map<string, RemoteStore>();

  constructor(channel: Channel<ControlCalls, ThreadCalls>, { state }: Config) {
    this.#channel = channel;
    this.#limitMs = durationMs(state.timeout) + marginMs;
  }

  of(name: string): RemoteStore {
    let store = this.#stores.get(name);
    if (store === undefined) {
      store = new RemoteStore((call) =>
        this.#channel.ask("state", { store: name, call }, this.#limitMs),
      );
      this.#stores.set(name, store);
    }
    return store;
  }

  parts({ state }: Config, seed: Uint8Array, log: Logger): StateParts {
    const isSealed = state.encryption_key_file !== undefined || state.store === "memory";
    const sealed = isSealed ? this.of("sealed") : undefined;
    const store = this.of("state");
    const logouts = logoutsIn(sealed ?? store, true, log);
    return {
      store,
      sealed,
      shared: this.of("shared"),
      seed,
      isKept: true,
      isShared: state.store === "redis",
      logouts,
      // The thread in control hears of them, and tells.
      kills: undefined,
      at: (url) => this.of(`at ${url}`),
      close: () => {
        logouts.close();
        return Promise.resolve();
      },
    };
  }
}

/** What the way to them needs. */
export interface HeldServices {
  readonly stores: HeldStores;
  readonly outbox: Outbox;
  readonly log: Logger;
}

/** Everything that is held elsewhere. */
export function heldParts(
  config: Config,
  { instanceId, seed }: StartOrder,
  channel: Channel<ControlCalls, ThreadCalls>,
  { stores, outbox, log }: HeldServices,
): HeldParts {
  return {
    instanceId,
    state: stores.parts(config, seed, log),
    sessions: (services) => threadSessions(config, outbox, services),
    authority: () => channel.ask("authority", undefined),
  };
}

async function threadSessions(
  config: Config,
  outbox: Outbox,
  services: SessionServices,
): Promise<SessionParts | undefined> {
  const { session, audit } = config;
  if (!session.enabled && audit === undefined) return undefined;
  const ttlMs = session.ttl === "never" ? Number.POSITIVE_INFINITY : durationMs(session.ttl);
  const attribution = new Attribution({
    store: {
      // It crosses later, and the turn forgets its flows meanwhile.
      rekey: (from, to, flows) => outbox.put({ kind: "rekey", from, to, flows: new Set(flows) }),
      intentOf: () => undefined,
      someIntents: () => [],
    },
    ttlMs,
    ties: session.enabled ? sharedTies(session, ttlMs, services) : undefined,
    addTraceparent: session.add_traceparent,
    field: session.header,
  });
  const decisions = new Decisions((facts) => outbox.put({ kind: "decision", facts }));
  const sink: EventSink = {
    record: (event, shownIn) => outbox.put({ kind: "event", event, shownIn }),
  };
  return {
    kept: undefined,
    isRead: session.enabled,
    recorder: new SessionRecorder({
      sinks: session.enabled ? [sink] : [],
      attribution,
      content: await contentOf(session),
      audit: audit === undefined ? undefined : decisions,
    }),
    close: () => {
      attribution.close();
      return Promise.resolve();
    },
  };
}
