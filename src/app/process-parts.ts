/** What a process makes once and every generation uses. */
import { durationMs } from "../config/duration.ts";
import type { Config } from "../config/presets.ts";
import type { AnyPluginDefinition } from "../pipeline/plugin.ts";
import { SessionStore } from "../session/store.ts";
import type { Logger } from "../telemetry/log.ts";
import { Metrics } from "../telemetry/metrics.ts";
import { OwnListeners } from "../upstream/own-listeners.ts";
import type { BuildServices } from "./build.ts";
import { CarriedState } from "./carried-state.ts";
import { ChainAcceptance } from "./chain-acceptance.ts";

/** The parts that outlive reloads. */
export interface ProcessParts {
  readonly metrics: Metrics;
  readonly services: BuildServices & { readonly acceptance: ChainAcceptance };
  readonly ownListeners: OwnListeners;
  readonly sessions: SessionStore | undefined;
  /** The number of the generation that serves new flows. */
  readonly serving: { generation: number };
}

/** Makes them from the file that the process starts with. */
export function makeProcessParts(
  config: Config,
  definitions: readonly AnyPluginDefinition[],
  log: Logger,
  version: string,
): ProcessParts {
  const { session } = config;
  const serving = { generation: 1 };
  const metrics = new Metrics({ version, generation: () => serving.generation });
  const ownListeners = new OwnListeners();
  const sessions = session.enabled
    ? new SessionStore({
        ttlMs: durationMs(session.ttl),
        maxEvents: session.max_events,
        maxSessions: session.max_sessions,
      })
    : undefined;
  const services = {
    log,
    metrics,
    ownListeners,
    carried: new CarriedState(),
    definitions,
    acceptance: new ChainAcceptance(log, metrics),
  };
  return { metrics, services, ownListeners, sessions, serving };
}
