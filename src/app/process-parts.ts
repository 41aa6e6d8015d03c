/** What a process makes once and every generation uses. */
import type { Config } from "../config/presets.ts";
import { PeerProcesses } from "../net/kernel/peer-process.ts";
import { SocketLookup } from "../net/kernel/socket-lookup.ts";
import type { AnyPluginDefinition } from "../pipeline/plugin.ts";
import type { Logger } from "../telemetry/log.ts";
import { FlowRecorder } from "../proxy/flow/finish.ts";
import { Metrics } from "../telemetry/metrics.ts";
import { OwnListeners } from "../upstream/own-listeners.ts";
import type { BuildServices } from "./build.ts";
import { CarriedState } from "./carried-state.ts";
import { makeOtlpParts, type OtlpParts } from "./otlp-parts.ts";
import { ChainAcceptance } from "./chaining/acceptance.ts";
import { makeStateParts, type StateParts } from "./state-parts.ts";
import { makeSessionParts, type SessionParts } from "./session-parts.ts";

/** The parts that outlive reloads. */
export interface ProcessParts {
  readonly metrics: Metrics;
  readonly recorder: FlowRecorder;
  /** Absent where the process reports to no collector. */
  readonly otlp: OtlpParts | undefined;
  readonly services: BuildServices & { readonly acceptance: ChainAcceptance };
  readonly ownListeners: OwnListeners;
  readonly peers: PeerProcesses;
  readonly sessions: SessionParts | undefined;
  readonly state: StateParts;
  /** The number of the generation that serves new flows. */
  readonly serving: { generation: number };
  /** Sets what happens when a plugin says that it permits something else than before. */
  onRecheck(run: () => void): void;
}

/** Makes them from the file that the process starts with. */
export async function makeProcessParts(
  config: Config,
  definitions: readonly AnyPluginDefinition[],
  log: Logger,
  version: string,
): Promise<ProcessParts> {
  const serving = { generation: 1 };
  const metrics = new Metrics({
    version,
    egressEnforcement: config.egress_enforcement,
    generation: () => serving.generation,
  });
  const ownListeners = new OwnListeners();
  const state = await makeStateParts(config, { log, metrics });
  const sessions = await makeSessionParts(config, { log, metrics, state });
  const otlp = await makeOtlpParts(config, { metrics, log, version });
  const recorder = new FlowRecorder({
    log,
    metrics,
    sessions: sessions?.recorder,
    tracing: otlp?.tracing,
    durations: otlp?.durations,
  });
  let recheck: () => void = () => undefined;
  const services: ProcessParts["services"] = {
    log,
    metrics,
    ownListeners,
    carried: new CarriedState(),
    definitions,
    acceptance: new ChainAcceptance(log, metrics),
    sessions: sessions?.kept === undefined ? undefined : sessions.recorder,
    onDial: (dial) => recorder.dialled(dial),
    otlp,
    state,
    recheck: () => recheck(),
  };
  const sockets = new SocketLookup({
    onFallback: (reason) => log.info({ reason }, "callers are looked up in /proc"),
  });
  return {
    metrics,
    recorder,
    otlp,
    services,
    peers: new PeerProcesses({ sockets }),
    ownListeners,
    sessions,
    state,
    serving,
    onRecheck: (run) => {
      recheck = run;
    },
  };
}

/** Where callers are looked for: in the namespaces that a process holds for the agent, else in our own. */
export function peersFor(holder: number | undefined, { peers }: ProcessParts): PeerProcesses {
  if (holder === undefined) return peers;
  peers.close();
  return new PeerProcesses({ agentPid: holder, isHolder: true });
}
