/** The desk of a thread, from the blocks `approval` and `state`. */
import { type Attendant, mayAttend } from "./attendant.ts";
import { Webhook } from "./webhook.ts";
import { Desk } from "../../approval/desk.ts";
import type { DeskOptions } from "../../approval/desk-options.ts";
import type { DecidingRules } from "../../approval/deciding.ts";
import type { Config } from "../../config/presets.ts";
import { durationMs } from "../../duration.ts";
import type { SessionReader } from "../../pipeline/plugin.ts";
import { Feed } from "../../state/feed.ts";
import type { StateStore } from "../../state/store.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Metrics } from "../../telemetry/metrics.ts";

/** What the desk stands on. */
export interface DeskServices {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly state: {
    readonly store: StateStore;
    readonly sealed: StateStore | undefined;
    readonly isShared: boolean;
  };
  readonly asker: DeskOptions["asker"];
  readonly sessions: SessionReader | undefined;
  readonly attendant: Attendant | undefined;
}

/** The desk; it hears of others once it is started. */
export function makeDesk(
  config: Config,
  { log, metrics, state, sessions, attendant, asker }: DeskServices,
): { readonly approvals: Desk; readonly webhook: Webhook | undefined } {
  const { approval } = config;
  // What is asked for may hold words of users.
  const store = state.sealed ?? state.store;
  const feed = new Feed({
    store,
    name: "approvals",
    keptMs: Math.max(durationMs(approval.expires), durationMs(approval.max_duration)),
    isShared: state.isShared || config.workers !== 1,
    onOwed: (problem) => {
      if (problem === undefined) log.info({}, "others have been told of all approvals");
      else log.error({ error: problem }, "others are told of approvals later");
    },
  });
  const desk = new Desk({
    settings: {
      isPolling: approval.on_pending === "poll",
      holdMs: durationMs(approval.hold),
      expiresMs: durationMs(approval.expires),
      keepAliveMs: durationMs(approval.keep_alive),
      retryAfterMs: durationMs(approval.retry_after),
      maxPending: approval.max_pending,
      maxPendingPerCaller: approval.max_pending_per_caller,
      maxHeld: approval.max_held,
      maxHeldPerCaller: approval.max_held_per_caller,
    },
    isAnswered: isAnswered(config) || (attendant !== undefined && mayAttend(config)),
    store,
    feed,
    asker,
    log,
    count: (event) => {
      metrics.counters.approvals_total.of(event).value += 1;
    },
    sessionOf: (context) => sessions?.sessionOf(context) ?? attendant?.session,
  });
  const { webhook } = approval;
  return {
    approvals: desk,
    webhook: webhook && new Webhook(webhook, { log, metrics, store }),
  };
}

/** Whether anybody can decide. */
function isAnswered({ approval, session, listener }: Config): boolean {
  const hasApi = session.enabled && listener.session_api_addr !== undefined;
  const hasSecret = session.api_secret_file !== undefined || approval.operators.length > 0;
  return (hasApi && hasSecret) || approval.callback !== undefined;
}

/** What decisions are bound by. */
export function decidingRules({ approval }: Config): DecidingRules {
  return {
    expiresMs: durationMs(approval.expires),
    maxDurationMs: durationMs(approval.max_duration),
    isTwoPerson: approval.two_person,
  };
}
