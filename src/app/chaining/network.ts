/** The parts of a generation's network that a chain plan changes. */
import type tls from "node:tls";
import type { AddressGuard } from "../../upstream/address-guard.ts";
import { OriginTrust } from "../../upstream/origin-trust.ts";
import { ProxyChain } from "../../upstream/proxy-chain.ts";
import { DirectUpstream } from "../../upstream/upstream.ts";
import type { ChainPlan } from "./plan.ts";

/** What does not depend on the plan. */
export interface NetworkBase {
  readonly guard: AddressGuard;
  /** `tls_bridge.upstream_ca_bundle`. */
  readonly extraCertificates: readonly string[];
  readonly insecureHosts: { matches(host: string): boolean };
  readonly minVersion: tls.SecureVersion;
  readonly connectTimeoutMs: number;
  readonly onFailure: (hop: string) => void;
}

/** How a candidate is tried: no step takes longer, and a certificate that is refused is described. */
export interface Trial {
  readonly limitMs: number;
}

/** Trust in origins: the authority of a parent that opens TLS is one of theirs. */
export function originTrust(
  base: NetworkBase,
  plan: ChainPlan | undefined,
  trial?: Trial,
): OriginTrust {
  const { extraCertificates, insecureHosts, minVersion, connectTimeoutMs } = base;
  return new OriginTrust({
    extraCertificates: [...extraCertificates, ...(plan?.trustedCa ?? [])],
    insecureHosts,
    minVersion,
    handshakeTimeoutMs: Math.min(connectTimeoutMs, trial?.limitMs ?? Number.POSITIVE_INFINITY),
    describesChains: trial !== undefined,
    ...(plan === undefined
      ? {}
      : {
          roots: plan.roots,
          trustKey: "tls_bridge.upstream_ca_bundle or upstream_proxy.trusted_ca",
        }),
  });
}

/** The dialler of a plan. */
export function proxyChain(base: NetworkBase, plan: ChainPlan, trial?: Trial): ProxyChain {
  const limit = trial?.limitMs ?? Number.POSITIVE_INFINITY;
  const connectTimeoutMs = Math.min(plan.connectTimeoutMs, limit);
  const { guard, minVersion, onFailure } = base;
  return new ProxyChain({
    guard,
    direct: new DirectUpstream({
      guard,
      connectTimeoutMs: Math.min(base.connectTimeoutMs, limit),
    }),
    routes: plan.routes,
    trust: new OriginTrust({
      extraCertificates: plan.trustedCa,
      roots: plan.roots,
      insecureHosts: { matches: () => false },
      minVersion,
      handshakeTimeoutMs: connectTimeoutMs,
      describesChains: trial !== undefined,
      trustKey: "upstream_proxy.trusted_ca",
    }),
    connectTimeoutMs,
    tunnelTimeoutMs: Math.min(plan.tunnelTimeoutMs, limit),
    ...(trial === undefined ? { onFailure } : {}),
  });
}
