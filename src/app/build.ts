/** Config in, an immutable Runtime out: the one place where the file's spelling meets domain terms. */
import type { Environment } from "../config/expand.ts";
import type { Config } from "../config/presets.ts";
import { sizeBytes } from "../config/size.ts";
import { durationMs } from "../duration.ts";
import { messageOf } from "../errors.ts";
import { assemble } from "../pipeline/assemble.ts";
import type { Direction } from "../pipeline/flow.ts";
import type { Desk } from "../approval/desk.ts";
import type { KillSwitch } from "../pipeline/kill-switch.ts";
import type { Pipeline } from "../pipeline/pipeline.ts";
import type {
  AnyPluginDefinition,
  OperatorFetch,
  PluginDeps,
  SessionReader,
} from "../pipeline/plugin.ts";
import type { Runtime } from "../proxy/flow/runtime.ts";
import type { TlsBridge } from "../proxy/flow/tls-bridge.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { Dial } from "../upstream/dial.ts";
import { OperatorClient } from "../upstream/operator-client.ts";
import type { AuthorityPem } from "../tlsbridge/certificate-authority.ts";
import { OriginPools } from "../upstream/origin-pools.ts";
import { OriginTls } from "../upstream/origin-tls.ts";
import type { OwnListeners } from "../upstream/own-listeners.ts";
import { buildBridge } from "./bridge.ts";
import { buildNetwork, buildSkipHosts, type Network } from "./build-network.ts";
import { type BuildProblem, located } from "./build-problems.ts";
import type { CallerAuthentication } from "../proxy/flow/caller-authentication.ts";
import { buildCallers } from "./caller-source.ts";
import type { CarriedState } from "./carried-state.ts";
import { type ChainAcceptance, tryChain } from "./chaining/acceptance.ts";
import type { ChainPlan } from "./chaining/plan.ts";
import { mutualTlsProblems, outboundPeers } from "./mutual-tls.ts";
import type { OtlpGate } from "./otlp-parts.ts";
import { entriesOf, readsSessions } from "./definitions.ts";
import { PluginLogs } from "../telemetry/plugin-logs.ts";
import { closePlugins, startPlugins } from "./plugin-start.ts";
import type { Webhook } from "./approvals/webhook.ts";
import { sessionProblems } from "./session-parts.ts";
import { pluginState, type StateParts } from "./state-parts.ts";
import { certificateProblems, ClientCertificates } from "./trust/client-certificates.ts";
import { flowLimits } from "./bounds.ts";
import { backendOf } from "./listen-options.ts";
import { connectionPlaces } from "./egress/places.ts";
import { claimWorkload, type Workload } from "./workload.ts";

/** What outlives generations. */
export interface BuildServices {
  readonly log: Logger;
  /** The variables that the file may name. */
  readonly env: Environment;
  readonly metrics: Metrics;
  readonly ownListeners: OwnListeners;
  readonly carried: CarriedState;
  readonly definitions: readonly AnyPluginDefinition[];
  /** Called for every connection to an upstream; absent where no traffic is served. */
  readonly onDial?: (dial: Dial) => void;
  /** In place of the way to the services that plugins name. */
  readonly fetch?: OperatorFetch;
  /** Absent where the process reports to no collector. */
  readonly otlp?: OtlpGate | undefined;
  /** Publishes the state of the chain of parent proxies; absent where no traffic is served. */
  readonly acceptance?: ChainAcceptance;
  /** Judges open tunnels again; absent where none are. */
  recheck?(): void;
  /** Of the generation that is being built. */
  readonly workload?: Workload | undefined;
  /** The authority that all threads of the process sign with where the file has none; absent where there is one thread. */
  readonly authority?: (() => Promise<AuthorityPem>) | undefined;
  /** What another thread holds for the plugins of this one; absent: this thread holds it. */
  readonly held?: PluginDeps["held"] | undefined;
  /** Another thread builds the same file, and says what both would. */
  readonly isEcho?: boolean;
  /** Absent where nothing is going to flow: nothing is opened then. */
  readonly state?: StateParts;
  /** Absent where sessions are off, and where nothing is going to flow. */
  readonly sessions?: SessionReader | undefined;
  /** What operators have stopped; absent where nothing is going to flow. */
  readonly kills?: KillSwitch | undefined;
  /** Where requests wait for persons; absent where nothing is going to flow. */
  readonly approvals?: Desk | undefined;
  /** Who is told of what waits. */
  readonly webhook?: Webhook | undefined;
}

/** A generation that is ready to serve, or everything that is wrong with its file. */
export type Build =
  | {
      readonly kind: "built";
      readonly runtime: Runtime;
      readonly chain: ChainPlan | undefined;
      /** To be called when it serves: what the process tells others takes its ways from then on. */
      serves(this: void): void;
    }
  | FailedBuild;

/** What is wrong with the file. */
export interface FailedBuild {
  readonly kind: "failed";
  readonly problems: readonly BuildProblem[];
}

/** How far a build goes. */
export interface BuildOptions {
  /** Plugins are started, and files are written. */
  readonly start?: boolean;
  /** A chain through upstream proxies is tried first. */
  readonly probe?: boolean;
  /** False where another thread serves the same file: plugins are not started here, as nobody asks them. */
  readonly serve?: boolean;
}

/** Builds and starts one generation. A build that fails leaves nothing behind. */
export async function buildRuntime(
  config: Config,
  generation: number,
  services: BuildServices,
  { start = true, probe = false, serve = true }: BuildOptions = {},
): Promise<Build> {
  const problems: BuildProblem[] = [];
  const failed = { kind: "failed", problems } as const;
  const parts = await partsOf(config, services, problems);
  if (parts === undefined) return failed;
  const { skipHosts, network, callers } = parts;
  const { upstream, trust, chain } = network;
  if (probe && chain !== undefined) {
    problems.push(...(await tryChain(chain, network.base, services)));
    if (problems.length > 0) return failed;
  }
  const operator = new OperatorClient(upstream, trust, services.metrics.services);
  const release = async (pipelines: readonly Pipeline[] = []): Promise<void> => {
    await closePlugins(pipelines, services.log);
    await operator.close();
    await services.carried.release(generation);
  };
  const own = await ownServices(config, generation, services);
  const chains = await buildPipelines(config, generation, operator, own);
  if (chains.kind === "failed") {
    await release();
    return chains;
  }
  const { inbound, outbound } = chains;
  const bridge = await buildBridge(config, generation, services, problems);
  const made = { pipelines: serve ? [inbound, outbound] : [], chain, bridge };
  if (start && problems.length === 0) problems.push(...(await bringUp(config, made, own)));
  if (problems.length > 0) {
    await release([inbound, outbound]);
    return failed;
  }
  const { closeOrigins, ...out } = buildOrigins(config, network, own);
  const runtime: Runtime = Object.freeze({
    generation,
    inbound,
    outbound,
    upstream,
    ...out,
    secure: trust.secure.bind(trust),
    skipHosts,
    callers,
    backend: backendOf(config),
    bridge,
    workload: own.workload,
    limits: flowLimits(config),
    close: async () => {
      await closeOrigins();
      await release([inbound, outbound]);
    },
  });
  return { kind: "built", runtime, chain, serves: () => tell(services, operator, chain) };
}

/** What outlives generations hears of the one that serves now. */
function tell(
  { acceptance, otlp, webhook }: BuildServices,
  operator: OperatorClient,
  chain: ChainPlan | undefined,
): void {
  acceptance?.accepted(chain);
  for (const one of [otlp, webhook]) one?.use(operator.fetchFor([one.origin]));
}

interface Made {
  readonly pipelines: readonly Pipeline[];
  readonly chain: ChainPlan | undefined;
  readonly bridge: TlsBridge | undefined;
}

/** Starts the plugins and prepares the chain. */
async function bringUp(
  config: Config,
  { pipelines, chain, bridge }: Made,
  { acceptance, logs, workload }: PluginServices,
): Promise<readonly BuildProblem[]> {
  try {
    await startPlugins(pipelines, durationMs(config.limits.plugin_start_timeout));
  } catch (error) {
    return [{ path: ["pipeline"], message: messageOf(error) }];
  }
  const unwritten = await acceptance?.prepare(chain, bridge);
  if (unwritten !== undefined) return [unwritten];
  workload?.begin();
  logs.serve();
  return [];
}

interface Parts {
  readonly skipHosts: Runtime["skipHosts"];
  readonly network: Network;
  readonly callers: CallerAuthentication | undefined;
}

/** The parts that need no network, or everything that is wrong with them at once. */
async function partsOf(
  config: Config,
  services: BuildServices,
  problems: BuildProblem[],
): Promise<Parts | undefined> {
  problems.push(...mutualTlsProblems(config), ...(await sessionProblems(config)));
  for (const { path, message } of certificateProblems(config.tls_bridge.client_certificates))
    problems.push({ path: ["tls_bridge", "client_certificates", ...path], message });
  const skipHosts = buildSkipHosts(config.listener.skip_hosts, problems);
  const network = buildNetwork(config, services, problems);
  const callers = buildCallers(config, services.log, problems);
  const isWhole = problems.length === 0 && skipHosts !== undefined && network !== undefined;
  return isWhole ? { skipHosts, network, callers } : undefined;
}

/** The HTTP client for requests of agents, over mutual TLS where the file wants that. */
function buildOrigins(
  config: Config,
  { upstream, trust }: Network,
  services: BuildServices,
): Pick<Runtime, "origins" | "peerOf"> & { closeOrigins(this: void): Promise<void> } {
  const { limits, tls_bridge: bridge } = config;
  const peers = outboundPeers(config, upstream, services);
  const certificates = new ClientCertificates(bridge.client_certificates, {
    x509: services.workload?.x509,
    now: Date.now,
    onProblem: (problem) => services.log.warn({ problem }, "client certificate not usable"),
  });
  const origins = new OriginPools({
    upstream: peers?.upstream ?? upstream,
    tls: new OriginTls(trust, certificates),
    connectTimeoutMs: durationMs(limits.connect_timeout),
    responseTimeoutMs: durationMs(limits.response_timeout),
    streamIdleTimeoutMs: durationMs(limits.stream_idle_timeout),
    maxHeaderBytes: sizeBytes(limits.max_header_bytes),
    http2: bridge.upstream_http2,
    places: connectionPlaces(limits, services),
    maxConnections: limits.max_upstream_connections,
    onDial: services.onDial,
  });
  peers?.onRevoked(origins);
  const closeOrigins = async (): Promise<void> => {
    peers?.close();
    await origins.close();
  };
  if (peers === undefined) return { origins, closeOrigins };
  return { origins, closeOrigins, peerOf: (destination) => peers.upstream.peerOf(destination) };
}

/** With what belongs to one generation. */
interface PluginServices extends BuildServices {
  readonly logs: PluginLogs;
}

async function ownServices(
  config: Config,
  generation: number,
  services: BuildServices,
): Promise<PluginServices> {
  const logs = new PluginLogs(services.log, services.isEcho === true);
  return { ...services, logs, workload: await claimWorkload(config, generation, services) };
}

interface Pipelines {
  readonly kind: "built";
  readonly inbound: Pipeline;
  readonly outbound: Pipeline;
}

async function buildPipelines(
  config: Config,
  generation: number,
  operator: OperatorClient,
  services: PluginServices,
): Promise<Pipelines | FailedBuild> {
  const build = (direction: Direction): ReturnType<typeof assemble> =>
    assemble(entriesOf(config, direction), {
      ...services,
      direction,
      otherwise: config.pipeline[direction].default,
      readsSessions: readsSessions(config, direction, services.definitions),
      onInvocation: (_direction, invocation) => services.metrics.invocation(direction, invocation),
      depsFor: (instance, origins) => ({
        ...pluginDeps(instance, generation, services),
        isAlone: config.workers === 1,
        fetch: services.fetch ?? operator.fetchFor(origins),
      }),
    });
  services.approvals?.begin(generation);
  const inbound = await build("inbound");
  const outbound = await build("outbound");
  if (inbound.kind === "assembled" && outbound.kind === "assembled") {
    return { kind: "built", inbound: inbound.pipeline, outbound: outbound.pipeline };
  }
  const problems: BuildProblem[] = [];
  for (const [direction, built] of [
    ["inbound", inbound],
    ["outbound", outbound],
  ] as const) {
    if (built.kind === "rejected") problems.push(...located(direction, built.problems));
    else await closePlugins([built.pipeline], services.log);
  }
  return { kind: "failed", problems };
}

function pluginDeps(
  instance: string,
  generation: number,
  services: PluginServices,
): Omit<PluginDeps, "fetch" | "isAlone"> {
  return {
    instance,
    log: services.logs.of(instance),
    clock: { now: () => Date.now() },
    sessions: services.sessions,
    approvals: services.approvals?.forPlugin(generation, instance),
    ...services.workload?.forPlugins,
    ...pluginState(generation, services),
    carry: (key, make) => services.carried.claim(generation, key, make),
    held: services.held ?? services.carried.holder(generation),
    count: (event) => services.metrics.pluginEvent(instance, event),
    noteSecret: (source, note) => services.metrics.secrets.note(source, note),
    changed: () => services.recheck?.(),
  };
}
