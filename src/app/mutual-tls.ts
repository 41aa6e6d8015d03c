/** Mutual TLS between sidecars, from the file's blocks `mtls` and `spiffe`. */
import type { Config } from "../config/presets.ts";
import { durationMs } from "../duration.ts";
import { messageOf } from "../errors.ts";
import { PeerGate, type PeerObserver } from "../mtls/peer-gate.ts";
import { PeerTrust } from "../mtls/peer-trust.ts";
import { peerAddress } from "../net/peer-address.ts";
import { HostMatcher } from "../pattern/host-pattern.ts";
import type { Direction } from "../pipeline/flow.ts";
import type { Runtime } from "../proxy/flow/runtime.ts";
import { allowedIdProblem, AllowedIds } from "../spiffe/allowed-ids.ts";
import { trustDomainOf } from "../spiffe/spiffe-id.ts";
import type { WorkloadIdentity } from "../spiffe/workload-identity.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { RareLog } from "../telemetry/rare-log.ts";
import type { Dial } from "../upstream/dial.ts";
import type { OriginPools } from "../upstream/origin-pools.ts";
import { PeerUpstream } from "../upstream/peer-upstream.ts";
import type { Upstream } from "../upstream/upstream.ts";
import type { BuildProblem } from "./build-problems.ts";

/** Where peers are told of, and the identity of the generation. */
export interface PeerServices {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly workload?: WorkloadIdentity | undefined;
  readonly onDial?: ((dial: Dial) => void) | undefined;
}

const lists = { inbound: "allowed_spiffe_ids", outbound: "allowed_upstream_spiffe_ids" } as const;

/** What is wrong with the patterns of both blocks. */
export function mutualTlsProblems({ mtls, spiffe }: Config): BuildProblem[] {
  const problems: BuildProblem[] = [];
  for (const key of Object.values(lists)) {
    for (const [index, pattern] of (mtls?.[key] ?? []).entries()) {
      const message = allowedIdProblem(pattern);
      if (message !== undefined) problems.push({ path: ["mtls", key, index], message });
    }
  }
  for (const [index, pattern] of (mtls?.outbound_hosts ?? []).entries()) {
    try {
      void new HostMatcher([pattern]);
    } catch (error) {
      problems.push({ path: ["mtls", "outbound_hosts", index], message: messageOf(error) });
    }
  }
  for (const domain of Object.keys(spiffe?.x509_files?.federated_bundle_files ?? {})) {
    if (trustDomainOf(domain) === domain) continue;
    const path = ["spiffe", "x509_files", "federated_bundle_files", domain];
    problems.push({ path, message: "is not the name of a trust domain, such as example.org" });
  }
  return problems;
}

/** Who may connect to the reverse proxy; absent where it speaks no mutual TLS. */
export function inboundGate(
  config: Config,
  { workload }: Pick<Runtime, "workload">,
  services: PeerServices,
): PeerGate | undefined {
  const trust = inboundTrust(config, { workload });
  if (trust === undefined || !config.listener.roles.includes("reverse")) return undefined;
  return new PeerGate(trust, gateOptions(config, "inbound", services));
}

/** What a generation says of the peers of the reverse proxy. */
export function inboundTrust(
  config: Config,
  { workload }: Pick<Runtime, "workload">,
): PeerTrust | undefined {
  return trustOf(config, "inbound", workload);
}

/** The outbound side of one generation. */
export interface OutboundPeers {
  readonly upstream: PeerUpstream;
  /** Says whose connections to peers are ended where one of these is no longer trusted. */
  onRevoked(origins: OriginPools): void;
  close(): void;
}

/** Absent where no request leaves over mutual TLS. */
export function outboundPeers(
  config: Config,
  upstream: Upstream,
  services: PeerServices,
): OutboundPeers | undefined {
  const { mtls, limits } = config;
  const trust = trustOf(config, "outbound", services.workload);
  const patterns = mtls?.outbound_hosts ?? (mtls?.mode === "strict" ? ["**"] : []);
  if (trust === undefined || patterns.length === 0) return undefined;
  let renew = (): void => undefined;
  const options = gateOptions(config, "outbound", services);
  const gate = new PeerGate(trust, { ...options, onRevoked: () => renew() });
  const secured = new PeerUpstream(upstream, {
    gate,
    hosts: new HostMatcher(patterns),
    handshakeTimeoutMs: durationMs(limits.connect_timeout),
    onDial: services.onDial,
  });
  return {
    upstream: secured,
    onRevoked: (origins) => {
      renew = () => origins.renew((permit) => secured.isMeant(permit));
    },
    close: () => gate.close(),
  };
}

function trustOf(
  { mtls }: Config,
  direction: Direction,
  workload: WorkloadIdentity | undefined,
): PeerTrust | undefined {
  if (mtls === undefined || workload === undefined) return undefined;
  const key = lists[direction];
  return new PeerTrust(workload.x509, new AllowedIds(mtls[key]), `mtls.${key}`);
}

function gateOptions(
  { limits }: Config,
  direction: Direction,
  { log, metrics }: PeerServices,
): { readonly observer: PeerObserver; readonly graceMs: number } {
  const { peers_refused_total: refused, peers_revoked_total: revoked } = metrics.counters;
  const rare = new RareLog(log);
  return {
    graceMs: durationMs(limits.drain_timeout),
    observer: {
      refused: ({ reason, message, peer }, address) => {
        refused.of(direction, reason).value += 1;
        const facts = { direction, reason, problem: message, address: peerAddress(address) };
        rare.warn(reason, peer === undefined ? facts : { ...facts, peer }, "peer refused");
      },
      revoked: ({ reason, message, peer }, connections) => {
        revoked.of(direction).value += connections;
        const facts = { direction, reason, problem: message, peer, connections };
        log.warn(facts, "connections are closed: their peer is no longer trusted");
      },
    },
  };
}
