/** What a process makes once and every generation uses. */
import type { Environment } from "../config/expand.ts";
import type { Config } from "../config/presets.ts";
import { PeerProcesses } from "../net/kernel/peer-process.ts";
import { SocketLookup } from "../net/kernel/socket-lookup.ts";
import type { Desk } from "../approval/desk.ts";
import type { OwnPlace } from "../approval/told.ts";
import { KillSwitch } from "../pipeline/kill-switch.ts";
import type { AnyPluginDefinition } from "../pipeline/plugin.ts";
import type { EventSink } from "../session/recorder.ts";
import type { Logger } from "../telemetry/log.ts";
import { derivedBytes } from "../secret.ts";
import { FlowRecorder } from "../proxy/flow/finish.ts";
import { Metrics } from "../telemetry/metrics.ts";
import { OwnListeners } from "../upstream/own-listeners.ts";
import type { Attendant } from "./approvals/attendant.ts";
import { makeDesk } from "./approvals/desk-parts.ts";
import { commonAuthority } from "./bridge.ts";
import type { BuildServices } from "./build.ts";
import { CarriedState } from "./carried-state.ts";
import { makeOtlpParts, type OtlpParts } from "./otlp-parts.ts";
import type { Receipts } from "../proxy/flow/receipts.ts";
import { makeReceipts } from "./receipts/receipt-signer.ts";
import { ChainAcceptance } from "./chaining/acceptance.ts";
import { makeStateParts, type StateParts } from "./state-parts.ts";
import { makeSessionParts, type SessionParts, type SessionServices } from "./session-parts.ts";
import type { AuthorityPem } from "../tlsbridge/certificate-authority.ts";

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
  readonly receipts: Receipts | undefined;
  /** What operators have stopped. */
  readonly kills: KillSwitch;
  /** Where requests wait for persons. */
  readonly approvals: Desk;
  /** Absent where nobody is told of what waits. */
  readonly webhook: BuildServices["webhook"];
  /** The number of the generation that serves new flows. */
  readonly serving: { generation: number };
  /** Judges open tunnels again. */
  recheck(this: void): void;
  /** Sets what happens when a plugin says that it permits something else than before. */
  onRecheck(run: () => void): void;
}

/** Who makes the parts. */
export interface ProcessOptions {
  readonly log: Logger;
  readonly version: string;
  /** The variables that the file may name. */
  readonly env: Environment;
  /** Gets every event. */
  readonly events?: EventSink | undefined;
  /** The first generation that is served; 1 in a new process. */
  readonly generation?: number;
  /** Who holds the agent's namespaces, where it has its own. */
  readonly agentPid?: number | undefined;
  /** Who is asked for approvals besides those whom the file names. */
  readonly attendant?: Attendant | undefined;
  /** In a thread beside others: what another thread holds for all of them. */
  readonly held?: HeldParts | undefined;
}

/** Parts of which a process has one, whatever the number of its threads. */
export interface HeldParts {
  readonly state: StateParts;
  readonly instanceId: string;
  /** The number of this thread, and how many there are. */
  readonly place: Omit<OwnPlace, "process">;
  readonly held: NonNullable<BuildServices["held"]>;
  sessions(services: SessionServices): Promise<SessionParts | undefined>;
  authority(this: void): Promise<AuthorityPem>;
}

/** Makes them from the file that the process starts with. */
export async function makeProcessParts(
  config: Config,
  definitions: readonly AnyPluginDefinition[],
  { log, version, env, events, generation = 1, agentPid, attendant, held }: ProcessOptions,
): Promise<ProcessParts> {
  const serving = { generation };
  const metrics = new Metrics({
    version,
    egressEnforcement: config.egress_enforcement,
    generation: () => serving.generation,
  });
  const state = held?.state ?? (await makeStateParts(config, { log, metrics }));
  const parts = { log, metrics, state, events };
  const sessions = await (held?.sessions(parts) ?? makeSessionParts(config, parts));
  const otlp = await makeOtlpParts(config, { metrics, log, version, thread: held });
  const recorder = new FlowRecorder({ log, metrics, sessions: sessions?.recorder, ...otlp });
  const recording = sessions?.isRead === true ? sessions.recorder : undefined;
  const kills = new KillSwitch((context) => recording?.sessionOf(context));
  const asker = askerOf(config, state, held);
  const desk = makeDesk(config, { log, metrics, state, sessions: recording, attendant, asker });
  let recheck = (): void => undefined;
  const services: ProcessParts["services"] = {
    log,
    env,
    metrics,
    ownListeners: new OwnListeners(),
    carried: new CarriedState(),
    definitions,
    acceptance: new ChainAcceptance(log, metrics),
    sessions: recording,
    kills,
    held: held?.held,
    ...desk,
    onDial: (dial) => recorder.dialled(dial),
    otlp,
    state,
    authority: held?.authority ?? (config.workers === 1 ? undefined : commonAuthority(log)),
    recheck: () => recheck(),
  };
  return {
    metrics,
    recorder,
    otlp,
    services,
    peers: peersFor(agentPid, log),
    ownListeners: services.ownListeners,
    sessions,
    state,
    kills,
    receipts: makeReceipts(config.audit, log),
    ...desk,
    serving,
    recheck: () => recheck(),
    onRecheck: (run) => void (recheck = run),
  };
}

/** Who asks persons: not the thread that has others for it. */
function askerOf(
  { workers }: Config,
  { isShared, seed }: StateParts,
  held: HeldParts | undefined,
): OwnPlace | undefined {
  const place = held?.place ?? (workers === 1 ? { thread: 0, threads: 1 } : undefined);
  // Where only those see the store that come after this process, what it asked is theirs.
  const name = isShared ? derivedBytes(seed, "approvals").toString("base64url") : "";
  return place && { process: name, ...place };
}

/** Where callers are looked for: in the namespaces that a process holds for the agent, else in our own. */
function peersFor(agentPid: number | undefined, log: Logger): PeerProcesses {
  if (agentPid !== undefined) return new PeerProcesses({ agentPid, isHolder: true });
  const onFallback = (reason: string): void =>
    log.info({ reason }, "callers are looked up in /proc");
  return new PeerProcesses({ sockets: new SocketLookup({ onFallback }) });
}
