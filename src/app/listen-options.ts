/** Addresses and limits of the listeners, from the file's spelling. */
import { durationMs } from "../duration.ts";
import { parseListenAddress } from "../config/listen-address.ts";
import type { Config } from "../config/presets.ts";
import { surfaceKey, type SurfaceName } from "../config/surfaces.ts";
import { sizeBytes } from "../config/size.ts";
import { ProxyError } from "../errors.ts";
import type { BindAddress } from "../listener/listener.ts";
import type { HttpLimits } from "../proxy/exchange/http-server.ts";

/** The addresses that were bound; absent surfaces are not open. */
export type BoundAddresses = Readonly<Partial<Record<SurfaceName, BindAddress>>>;

/** An address without a host means every IPv4 address, as `:8081` does in the contract. */
export function bindAddressOf(text: string, surface?: SurfaceName): BindAddress {
  const address = parseListenAddress(text);
  if (address === undefined)
    throw new ProxyError("config.invalid", `"${text}" is not a listen address`);
  const { host = "0.0.0.0", port } = address;
  return { host, port, ...(surface === undefined ? {} : { key: surfaceKey(surface) }) };
}

/** The limits of one listener. */
export function listenerLimits(config: Config): HttpLimits {
  const { limits } = config;
  return {
    maxConnections: limits.max_connections,
    maxHeaderBytes: sizeBytes(limits.max_header_bytes),
    maxHeaders: limits.max_headers,
    headerTimeoutMs: durationMs(limits.header_timeout),
    keepAliveTimeoutMs: durationMs(limits.keep_alive_timeout),
    maxRequestsPerConnection: limits.max_requests_per_connection,
    maxStreamsPerConnection: limits.max_streams_per_connection,
  };
}
