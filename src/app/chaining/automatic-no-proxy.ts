/** The entries of no_proxy that a cluster cannot do without, as OpenShift's network operator makes them. */
import type { UpstreamProxyConfig } from "./parent.ts";

/** In the order of docs/corporate-proxy.md. */
export function automaticNoProxy(block: UpstreamProxyConfig["automatic_no_proxy"]): string[] {
  if (block === undefined) return [];
  const {
    cluster,
    service_network: service,
    cluster_network: pods,
    machine_network: machines,
    cluster_domain: domain,
    api_server: server,
    metadata,
    region,
    extra,
  } = block;
  return [
    ...(cluster ? ["localhost", "127.0.0.1", ".svc", ".cluster.local"] : []),
    ...[service, pods, machines].flatMap((network) => network ?? []),
    // api.<cluster_domain> is not among them: it may stand in front of a load balancer outside.
    ...(domain === undefined ? [] : [`api-int.${domain.replace(/^\./, "")}`]),
    ...(server === undefined ? [] : [hostOf(server)]),
    ...(metadata ? ["169.254.169.254"] : []),
    ...(region === undefined ? [] : [regionDomain(region)]),
    ...extra,
  ];
}

/** The API server is often known by its URL. */
function hostOf(server: string): string {
  return URL.canParse(server) && server.includes("://") ? new URL(server).hostname : server;
}

/** AWS names the hosts of its first region differently. */
function regionDomain(region: string): string {
  return region === "us-east-1" ? ".ec2.internal" : `.${region}.compute.internal`;
}
