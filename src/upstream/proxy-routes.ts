/** Which destinations go through which parent. */
import type { IpAddress } from "../net/address.ts";
import type { Destination } from "../net/destination.ts";
import type { HostMatcher } from "../pattern/host-pattern.ts";
import type { NoProxy } from "../net/no-proxy.ts";
import type { ParentProxy } from "./parent/parent-proxy.ts";

/** A parent, or a direct connection. */
export type Way = ParentProxy | "direct";

/** One exception from the general rule. */
export interface ProxyRoute {
  readonly hosts: Pick<HostMatcher, "matches">;
  readonly way: Way;
}

/** Options of the routes. */
export interface ProxyRoutesOptions {
  /** For plain HTTP. */
  readonly httpProxy: ParentProxy | undefined;
  /** For https and for tunnels. */
  readonly httpsProxy: ParentProxy | undefined;
  readonly routes: readonly ProxyRoute[];
  readonly noProxy: NoProxy;
}

/** Chooses the route of a destination: the first route that matches, then no_proxy, then the parent of the scheme. */
export class ProxyRoutes {
  readonly #options: ProxyRoutesOptions;
  /** Every parent that some destination may go through. */
  readonly parents: readonly ParentProxy[];

  constructor(options: ProxyRoutesOptions) {
    this.#options = options;
    const ways = [options.httpProxy, options.httpsProxy, ...options.routes.map(({ way }) => way)];
    this.parents = [...new Set(ways.filter((way) => way !== undefined && way !== "direct"))];
  }

  /** The route as far as the destination itself decides it; see {@link directAmong} for its addresses. */
  decide(destination: Destination): Way {
    const { routes, noProxy, httpProxy, httpsProxy } = this.#options;
    const { host, port } = destination;
    const routed = routes.find(({ hosts }) => hosts.matches(host));
    if (routed !== undefined) return routed.way;
    if (noProxy.find(host, port) !== undefined) return "direct";
    return (destination.scheme === "http" ? httpProxy : httpsProxy) ?? "direct";
  }

  /** Those addresses of a name that no_proxy exempts; they, and no others, are dialled without the parent. */
  directAmong(destination: Destination, addresses: readonly IpAddress[]): readonly IpAddress[] {
    const { routes, noProxy } = this.#options;
    const { host, port } = destination;
    if (destination.isAddress || !noProxy.hasRanges) return [];
    // A route says something about the name, which counts for more than where it happens to be.
    if (routes.some(({ hosts }) => hosts.matches(host))) return [];
    return noProxy.among(addresses, port);
  }
}
