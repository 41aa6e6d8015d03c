/** Addresses and limits of the listeners, from the file's spelling. */
import { durationMs } from "../duration.ts";
import { parseListenAddress } from "../config/listen-address.ts";
import type { Config } from "../config/presets.ts";
import { sizeBytes } from "../config/size.ts";
import { ProxyError } from "../errors.ts";
import type { BindAddress } from "../listener/listener.ts";
import type { HttpLimits } from "../proxy/exchange/http-server.ts";

/** An address without a host means every IPv4 address, as `:8081` does in the contract. */
export function bindAddressOf(text: string, key?: string): BindAddress {
  const address = parseListenAddress(text);
  if (address === undefined)
    throw new ProxyError("config.invalid", `"${text}" is not a listen address`);
  const { host = "0.0.0.0", port } = address;
  return { host, port, ...(key === undefined ? {} : { key }) };
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
  };
}
