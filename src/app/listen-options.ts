/** Addresses and limits of the listeners, from the file's spelling. */
import { durationMs } from "../duration.ts";
import { parseListenAddress } from "../config/listen-address.ts";
import type { Config } from "../config/presets.ts";
import { surfaceKey, type SurfaceName } from "../config/surfaces.ts";
import { sizeBytes } from "../config/size.ts";
import { ProxyError } from "../errors.ts";
import { parseAbsoluteTarget } from "../net/destination.ts";
import type { Backend } from "../proxy/flow/runtime.ts";
import type { SharedBytes } from "../http/body.ts";
import type { BindAddress } from "../listener/bind.ts";
import type { TunnelPlaces } from "../proxy/flow/tunnel-registry.ts";
import type { ConnectionPlaces, HttpLimits } from "../proxy/exchange/http-server.ts";

/** The addresses that were bound; absent surfaces are not open. */
export type BoundAddresses = Readonly<Partial<Record<SurfaceName, BindAddress>>>;

/** What a thread shares with others that serve the same listeners. */
export interface Crowd {
  readonly pseudonym: string;
  readonly tunnels: TunnelPlaces;
  readonly buffered: SharedBytes;
  connections(
    surface: "forward" | "socks" | "reverse" | "transparent" | "transparent_inbound",
  ): ConnectionPlaces;
  /** What the first of the threads has bound; undefined in that one itself. */
  readonly bound: BoundAddresses | undefined;
}

/** Where a thread binds a surface: as the file has it, or beside the thread that was first. */
export function sharedAddress(
  wanted: BindAddress,
  surface: SurfaceName,
  crowd: Crowd | undefined,
): BindAddress {
  if (crowd === undefined) return wanted;
  const bound = crowd.bound?.[surface];
  return bound === undefined
    ? { ...wanted, shared: "first" }
    : { ...wanted, ...bound, shared: "next" };
}

/** An address without a host means every IPv4 address, as `:8081` does in the contract. */
export function bindAddressOf(text: string, surface?: SurfaceName): BindAddress {
  const address = parseListenAddress(text);
  if (address === undefined)
    throw new ProxyError("config.invalid", `"${text}" is not a listen address`);
  const { host = "0.0.0.0", port } = address;
  return { host, port, ...(surface === undefined ? {} : { key: surfaceKey(surface) }) };
}

/** The limits of one listener, which may share its places with those of other threads. */
export function listenerLimits(config: Config, shared?: ConnectionPlaces): HttpLimits {
  const { limits } = config;
  return {
    shared,
    maxConnections: limits.max_connections,
    maxHeaderBytes: sizeBytes(limits.max_header_bytes),
    maxHeaders: limits.max_headers,
    headerTimeoutMs: durationMs(limits.header_timeout),
    keepAliveTimeoutMs: durationMs(limits.keep_alive_timeout),
    maxRequestsPerConnection: limits.max_requests_per_connection,
    maxStreamsPerConnection: limits.max_streams_per_connection,
  };
}

/** The service behind the reverse proxy; undefined where the file names none. */
export function backendOf(config: Config): Backend | undefined {
  const url = config.listener.reverse_proxy_backend;
  if (url === undefined) return undefined;
  const isH2c = /^h2c:/i.test(url);
  const { destination, path } = parseAbsoluteTarget(url.replace(/^h2c:/i, "http:"));
  const basePath = path.replace(/\/+$/, "");
  return { destination, basePath, ...(isH2c ? { priorKnowledge: "always" } : {}) };
}
