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
import { type Ledger, TurnLedger } from "../session/ledger.ts";
import { type EventSink, SessionRecorder } from "../session/recorder.ts";
import { RemoteStore } from "../state/remote-store.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Channel } from "../threads/channel.ts";
import { Order } from "../threads/order.ts";
import type { ControlCalls, StartOrder, ThreadCalls } from "./calls.ts";
import { heldBy } from "./held-values.ts";
import type { Outbox } from "./outbox.ts";
import { RemoteLedger } from "./remote-ledger.ts";

/** Beside the limit that the store itself has. */
const marginMs = 1_000;

/** The stores of the thread in control, by name. */
export class HeldStores {
  readonly #channel: Channel<ControlCalls, ThreadCalls>;
  readonly limitMs: number;
  readonly #stores = new Map<string, RemoteStore>();

  constructor(channel: Channel<ControlCalls, ThreadCalls>, { state }: Config) {
    this.#channel = channel;
    this.limitMs = durationMs(state.timeout) + marginMs;
  }

  of(name: string): RemoteStore {
    let store = this.#stores.get(name);
    if (store === undefined) {
      store = new RemoteStore(
        (call) => this.#channel.ask("state", { store: name, call }, this.limitMs),
        () => this.#stores.delete(name),
      );
      this.#stores.set(name, store);
    }
    return store;
  }

  parts({ state }: Config, seed: Uint8Array, log: Logger): StateParts {
    const isSealed = state.encryption_key_file !== undefined || state.store === "memory";
    const sealed = isSealed ? this.of("sealed") : undefined;
    const store = this.of("state");
    const shared = this.of("shared");
    const place = { store: sealed ?? store, isShared: true, threads: shared };
    const logouts = logoutsIn(place, log);
    return {
      store,
      sealed,
      shared,
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
  order: StartOrder,
  channel: Channel<ControlCalls, ThreadCalls>,
  { stores, outbox, log }: HeldServices,
): HeldParts {
  const { instanceId, thread, threads } = order;
  return {
    instanceId,
    place: { thread, threads },
    state: stores.parts(config, order.seed, log),
    held: heldBy((call, limitMs) => channel.ask("held", call, limitMs), stores.limitMs),
    sessions: (services) =>
      threadSessions(config, { ...services, outbox, channel, order, limitMs: stores.limitMs }),
    authority: () => channel.ask("authority", undefined),
  };
}

interface ThreadSessionServices extends SessionServices {
  readonly outbox: Outbox;
  readonly channel: Channel<ControlCalls, ThreadCalls>;
  readonly order: StartOrder;
  readonly limitMs: number;
}

async function threadSessions(
  config: Config,
  services: ThreadSessionServices,
): Promise<SessionParts | undefined> {
  const { session, audit, listener } = config;
  if (!session.enabled && audit === undefined) return undefined;
  const { outbox } = services;
  // With one role, nothing that comes through one thread follows from what came through another.
  const remote = listener.roles.length > 1 ? remoteLedger(services) : undefined;
  const ledger = remote ?? ownLedger(session, services);
  const { add_traceparent: addTraceparent, header: field } = session;
  const attribution = new Attribution({ ledger, addTraceparent, field });
  const decisions = new Decisions((facts) => outbox.put({ kind: "decision", facts }));
  const sink: EventSink = {
    record: (event, shownIn) => {
      const moment = { kind: "event", event, shownIn } as const;
      // What users ask is what actions are judged by.
      const isAsked = event.direction === "inbound" && event.phase === "request";
      if (remote !== undefined && isAsked && event.a2a !== undefined) remote.record(moment);
      else outbox.put(moment);
    },
  };
  return {
    kept: undefined,
    isRead: session.enabled,
    ledger,
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

function remoteLedger({
  outbox,
  channel,
  order: { thread, threads, order },
  limitMs,
  state,
  metrics,
}: ThreadSessionServices): RemoteLedger {
  return new RemoteLedger({
    channel,
    thread,
    limitMs,
    order: new Order(threads, order),
    isReplicated: state.isShared,
    later: (moment) => outbox.put(moment),
    onResult: (result) => {
      metrics.counters.session_ties_total.of(result).value += 1;
    },
  });
}

function ownLedger(session: Config["session"], services: ThreadSessionServices): Ledger {
  const ttlMs = session.ttl === "never" ? Number.POSITIVE_INFINITY : durationMs(session.ttl);
  return new TurnLedger({
    store: {
      // It crosses later, and the turn forgets its flows meanwhile.
      rekey: (from, to, flows) =>
        services.outbox.put({ kind: "rekey", from, to, flows: new Set(flows) }),
      intentOf: () => undefined,
      someIntents: () => [],
    },
    ttlMs,
    ties: session.enabled ? sharedTies(session, ttlMs, services) : undefined,
  });
}
