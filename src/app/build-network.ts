/** The outbound network of one generation: address guard, trust, and the chain of parent proxies. */
import type { Environment } from "../config/expand.ts";
import type { Config } from "../config/presets.ts";
import { durationMs } from "../duration.ts";
import { compileSkipHosts, HostMatcher } from "../pattern/host-pattern.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { OriginTrust } from "../upstream/origin-trust.ts";
import { DirectUpstream, type OperatorUpstream, type Upstream } from "../upstream/upstream.ts";
import { upstreamCertificates } from "./bridge.ts";
import { attempt, type BuildProblem } from "./build-problems.ts";
import { type NetworkBase, originTrust, proxyChain } from "./chaining/network.ts";
import { type ChainPlan, planChain } from "./chaining/plan.ts";
import { addressGuardOf } from "./egress/guard.ts";

/** What outlives generations and is notified of outbound connections. */
type NetworkServices = Parameters<typeof addressGuardOf>[1] & {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly env: Environment;
};

/** The outbound network of one generation. */
export interface Network {
  readonly upstream: Upstream & OperatorUpstream;
  readonly trust: OriginTrust;
  readonly base: NetworkBase;
  readonly chain: ChainPlan | undefined;
}

/** Undefined, with its problems added, where the file says nothing that works. */
export function buildNetwork(
  config: Config,
  services: NetworkServices,
  problems: BuildProblem[],
): Network | undefined {
  const { limits, tls_bridge: bridge } = config;
  const before = problems.length;
  const extraCertificates = upstreamCertificates(config, problems);
  if (problems.length > before) return undefined;
  const insecureHosts = attempt(
    ["tls_bridge", "upstream_insecure_hosts"],
    () => new HostMatcher(bridge.upstream_insecure_hosts),
    problems,
  );
  if (insecureHosts === undefined) return undefined;
  const chain = planChain(config, services.env, problems);
  if (problems.length > before) return undefined;
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

/** The hosts of `listener.skip_hosts`: each pattern for itself first, so that the one that is wrong is named. */
export function buildSkipHosts(
  patterns: readonly string[],
  problems: BuildProblem[],
): ReturnType<typeof compileSkipHosts> | undefined {
  const each = patterns.map((pattern, index) =>
    attempt(["listener", "skip_hosts", index], () => compileSkipHosts([pattern]), problems),
  );
  return each.includes(undefined) ? undefined : compileSkipHosts(patterns);
}
