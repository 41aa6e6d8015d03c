/** Config in, an immutable Runtime out: the one place where the file's spelling meets domain terms. */
import type { Config } from "../config/presets.ts";
import type { KeyPath } from "../yaml/problem.ts";
import { sizeBytes } from "../config/size.ts";
import { durationMs } from "../duration.ts";
import { messageOf } from "../errors.ts";
import { parseAbsoluteTarget } from "../net/destination.ts";
import { compileSkipHosts, HostMatcher } from "../pattern/host-pattern.ts";
import { assemble } from "../pipeline/assemble.ts";
import type { Direction } from "../pipeline/flow.ts";
import type { Pipeline } from "../pipeline/pipeline.ts";
import type {
  AnyPluginDefinition,
  OperatorFetch,
  PluginDeps,
  SessionReader,
} from "../pipeline/plugin.ts";
import type { Backend, Runtime } from "../proxy/flow/runtime.ts";
import type { TlsBridge } from "../proxy/flow/tls-bridge.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { Dial } from "../upstream/dial.ts";
import { OperatorClient } from "../upstream/operator-client.ts";
import { OriginPools } from "../upstream/origin-pools.ts";
import type { OriginTrust } from "../upstream/origin-trust.ts";
import type { OwnListeners } from "../upstream/own-listeners.ts";
import { DirectUpstream, type OperatorUpstream, type Upstream } from "../upstream/upstream.ts";
import { buildBridge, upstreamCertificates } from "./bridge.ts";
import { type BuildProblem, located, unavailableKeys } from "./build-problems.ts";
import { buildCallers } from "./caller-source.ts";
import type { CarriedState } from "./carried-state.ts";
import { type ChainAcceptance, tryChain } from "./chaining/acceptance.ts";
import { type NetworkBase, originTrust, proxyChain } from "./chaining/network.ts";
import { type ChainPlan, planChain } from "./chaining/plan.ts";
import { addressGuardOf } from "./egress-guard.ts";
import type { OtlpGate } from "./otlp-parts.ts";
import { entryOf } from "./definitions.ts";
import { closePlugins, startPlugins } from "./plugin-start.ts";
import { sessionProblems } from "./session-parts.ts";
import { connectionPlaces } from "./upstream-places.ts";
import { claimWorkload, type Workload } from "./workload.ts";

/** What outlives generations. */
export interface BuildServices {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly ownListeners: OwnListeners;
  readonly carried: CarriedState;
  readonly definitions: readonly AnyPluginDefinition[];
  /** Hears of every connection to an upstream; absent where nothing is going to flow. */
  readonly onDial?: (dial: Dial) => void;
  /** In place of the way to the services that plugins name. */
  readonly fetch?: OperatorFetch;
  /** Absent where the process reports to no collector. */
  readonly otlp?: OtlpGate | undefined;
  /** Where the chain through upstream proxies is told of; absent where nothing is served. */
  readonly acceptance?: ChainAcceptance;
  /** Judges open tunnels again; absent where none are. */
  recheck?(): void;
  /** Of the generation that is being built. */
  readonly workload?: Workload | undefined;
  /** Absent where sessions are off, and where nothing is going to flow. */
  readonly sessions?: SessionReader | undefined;
}

/** What could not be made, and why. */
interface Failed {
  readonly problems: readonly BuildProblem[];
}

/** A generation that is ready to serve, or everything that is wrong with its file. */
export type Build = { readonly runtime: Runtime; readonly chain: ChainPlan | undefined } | Failed;

/** How far a build goes. */
export interface BuildOptions {
  /** Plugins are started, and files are written. */
  readonly start?: boolean;
  /** A chain through upstream proxies is tried first. */
  readonly probe?: boolean;
}

/** Builds and starts one generation. A build that fails leaves nothing behind. */
export async function buildRuntime(
  config: Config,
  generation: number,
  services: BuildServices,
  { start = true, probe = false }: BuildOptions = {},
): Promise<Build> {
  const parts = await partsOf(config, services);
  if ("problems" in parts) return parts;
  const { skipHosts, network, callers } = parts;
  const { upstream, trust, chain } = network;
  if (probe && chain !== undefined) {
    const problems = await tryChain(chain, network.base, services);
    if (problems.length > 0) return { problems };
  }
  const operator = new OperatorClient(upstream, trust);
  const release = async (pipelines: readonly Pipeline[] = []): Promise<void> => {
    await closePlugins(pipelines, services.log);
    await operator.close();
    await services.carried.release(generation);
  };
  const own = { ...services, workload: await claimWorkload(config, generation, services) };
  const chains = await buildPipelines(config, generation, operator, own);
  if ("problems" in chains) {
    await release();
    return chains;
  }
  const { inbound, outbound } = chains;
  const bridge = await buildBridge(config, generation, services);
  if (bridge !== undefined && "problems" in bridge) {
    await release([inbound, outbound]);
    return bridge;
  }
  const made = { pipelines: [inbound, outbound], chain, bridge };
  const faults = start ? await bringUp(config, made, own) : [];
  if (faults.length > 0) {
    await release();
    return { problems: faults };
  }
  const origins = originPools(config, network, services);
  services.otlp?.use(operator.fetchFor([services.otlp.origin]));
  const runtime: Runtime = Object.freeze({
    generation,
    inbound,
    outbound,
    upstream,
    origins,
    secure: trust.secure.bind(trust),
    skipHosts,
    callers: callers.authentication,
    backend: backendOf(config),
    bridge,
    workload: own.workload,
    limits: flowLimits(config),
    close: async () => {
      await origins.close();
      await release([inbound, outbound]);
    },
  });
  return { runtime, chain };
}

interface Made {
  readonly pipelines: readonly Pipeline[];
  readonly chain: ChainPlan | undefined;
  readonly bridge: TlsBridge | undefined;
}

/** Starts the plugins and prepares the chain; where something is wrong, no plugin runs any more. */
async function bringUp(
  config: Config,
  { pipelines, chain, bridge }: Made,
  { acceptance, log, workload }: BuildServices,
): Promise<readonly BuildProblem[]> {
  try {
    await startPlugins(pipelines, durationMs(config.limits.plugin_start_timeout), log);
  } catch (error) {
    return [{ path: ["pipeline"], message: messageOf(error) }];
  }
  const unwritten = await acceptance?.prepare(chain, bridge);
  if (unwritten === undefined) {
    workload?.begin();
    return [];
  }
  await closePlugins(pipelines, log);
  return [unwritten];
}

interface Parts {
  readonly skipHosts: ReturnType<typeof compileSkipHosts>;
  readonly network: Network;
  readonly callers: Exclude<ReturnType<typeof buildCallers>, Failed>;
}

/** The parts that need no network, or everything that is wrong with them at once. */
async function partsOf(config: Config, services: BuildServices): Promise<Parts | Failed> {
  const missing = [...unavailableKeys(config), ...(await sessionProblems(config))];
  const skipHosts = buildSkipHosts(config.listener.skip_hosts);
  const network = buildNetwork(config, services);
  const callers = buildCallers(config, services.log);
  const isMade = <Part extends object>(part: Part | Failed): part is Part => !("problems" in part);
  if (missing.length === 0 && isMade(skipHosts) && isMade(network) && isMade(callers)) {
    return { skipHosts, network, callers };
  }
  const problems = [skipHosts, network, callers].flatMap((part) =>
    "problems" in part ? part.problems : [],
  );
  return { problems: [...missing, ...problems] };
}

function flowLimits({ limits }: Config): Runtime["limits"] {
  return {
    bodyTimeoutMs: durationMs(limits.body_timeout),
    streamIdleTimeoutMs: durationMs(limits.stream_idle_timeout),
    tunnelIdleTimeoutMs: durationMs(limits.tunnel_idle_timeout),
    maxBodyBytes: sizeBytes(limits.max_body),
    maxTunnels: limits.max_tunnels,
  };
}

function originPools(
  { limits, tls_bridge: bridge }: Config,
  { upstream, trust }: Pick<Network, "upstream" | "trust">,
  services: BuildServices,
): OriginPools {
  const { onDial } = services;
  return new OriginPools({
    upstream,
    trust,
    connectTimeoutMs: durationMs(limits.connect_timeout),
    responseTimeoutMs: durationMs(limits.response_timeout),
    streamIdleTimeoutMs: durationMs(limits.stream_idle_timeout),
    maxHeaderBytes: sizeBytes(limits.max_header_bytes),
    http2: bridge.upstream_http2,
    places: connectionPlaces(limits, services),
    maxConnections: limits.max_upstream_connections,
    onDial,
  });
}

/** Each pattern for itself first, so that the one that is wrong is named. */
function buildSkipHosts(patterns: readonly string[]): ReturnType<typeof compileSkipHosts> | Failed {
  const problems = patterns.flatMap((pattern, index) => {
    const compiled = attempt(["listener", "skip_hosts", index], () => compileSkipHosts([pattern]));
    return "problems" in compiled ? compiled.problems : [];
  });
  return problems.length > 0 ? { problems } : compileSkipHosts(patterns);
}

/** What `make` gives, or its error as a problem of the key. */
function attempt<T extends object>(path: KeyPath, make: () => T): T | Failed {
  try {
    return make();
  } catch (error) {
    return { problems: [{ path, message: messageOf(error) }] };
  }
}

function backendOf(config: Config): Backend | undefined {
  const url = config.listener.reverse_proxy_backend;
  if (url === undefined) return undefined;
  const { destination, path } = parseAbsoluteTarget(url);
  return { destination, basePath: path.replace(/\/+$/, "") };
}

interface Network {
  readonly upstream: Upstream & OperatorUpstream;
  readonly trust: OriginTrust;
  readonly base: NetworkBase;
  readonly chain: ChainPlan | undefined;
}

function buildNetwork(config: Config, services: BuildServices): Network | Failed {
  const { limits, tls_bridge: bridge } = config;
  const extraCertificates = upstreamCertificates(config);
  if ("problems" in extraCertificates) return extraCertificates;
  const insecureHosts = attempt(
    ["tls_bridge", "upstream_insecure_hosts"],
    () => new HostMatcher(bridge.upstream_insecure_hosts),
  );
  if ("problems" in insecureHosts) return insecureHosts;
  const chain = planChain(config, process.env);
  if (chain !== undefined && "problems" in chain) return chain;
  const connectTimeoutMs = durationMs(limits.connect_timeout);
  const guard = addressGuardOf(config, services);
  const base: NetworkBase = {
    guard,
    extraCertificates,
    insecureHosts,
    minVersion: bridge.min_version === "1.3" ? "TLSv1.3" : "TLSv1.2",
    connectTimeoutMs,
    onFailure: (hop) => {
      services.metrics.counters.upstream_proxy_failures_total.of(hop).value += 1;
    },
  };
  for (const host of bridge.upstream_insecure_hosts) {
    services.log.warn(
      { host },
      "tls_bridge.upstream_insecure_hosts: certificates of this host are not verified",
    );
  }
  const upstream =
    chain === undefined ? new DirectUpstream({ guard, connectTimeoutMs }) : proxyChain(base, chain);
  return { upstream, trust: originTrust(base, chain), base, chain };
}

type Chains = { readonly inbound: Pipeline; readonly outbound: Pipeline };

async function buildPipelines(
  config: Config,
  generation: number,
  operator: OperatorClient,
  services: BuildServices,
): Promise<Chains | Failed> {
  const build = (direction: Direction): ReturnType<typeof assemble> =>
    assemble(config.pipeline[direction].plugins.map(entryOf), {
      direction,
      otherwise: config.pipeline[direction].default,
      log: services.log,
      onInvocation: (_direction, invocation) => services.metrics.invocation(direction, invocation),
      definitions: services.definitions,
      depsFor: (instance, origins) => ({
        ...pluginDeps(instance, generation, services),
        fetch: services.fetch ?? operator.fetchFor(origins),
      }),
    });
  const inbound = await build("inbound");
  const outbound = await build("outbound");
  const problems = [
    ...("problems" in inbound ? located("inbound", inbound.problems) : []),
    ...("problems" in outbound ? located("outbound", outbound.problems) : []),
  ];
  if ("pipeline" in inbound && "pipeline" in outbound) {
    return { inbound: inbound.pipeline, outbound: outbound.pipeline };
  }
  for (const built of [inbound, outbound]) {
    if ("pipeline" in built) await closePlugins([built.pipeline], services.log);
  }
  return { problems };
}

function pluginDeps(
  instance: string,
  generation: number,
  services: BuildServices,
): Omit<PluginDeps, "fetch"> {
  return {
    instance,
    log: services.log.child({ plugin: instance }),
    clock: { now: () => Date.now() },
    sessions: services.sessions,
    ...services.workload?.forPlugins,
    carry: (key, make) => services.carried.claim(generation, key, make),
    count: (event) => services.metrics.pluginEvent(instance, event),
    changed: () => services.recheck?.(),
  };
}
