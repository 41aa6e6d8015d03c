/** The addresses that one configuration listens on, each with the key that names it. */
import { isIPv4, isIPv6 } from "node:net";
import { parseListenAddress } from "./listen-address.ts";
import type { Config } from "./presets.ts";
import { formatKeyPath, type KeyPath } from "../yaml/problem.ts";
import type { Remark } from "../yaml/schema-remarks.ts";

/** One address. */
export interface SurfaceAddress {
  readonly key: KeyPath;
  readonly address: string;
}

/** Every address of a configuration, in the order in which they are bound. */
export function surfaceAddresses({ listener, stats }: Config): readonly SurfaceAddress[] {
  const keys = [
    "reverse_proxy_addr",
    "forward_proxy_addr",
    "transparent_proxy_addr",
    "session_api_addr",
    "health_addr",
  ] as const;
  const listeners = keys.flatMap((key): SurfaceAddress[] => {
    const address = listener[key];
    return address === undefined ? [] : [{ key: ["listener", key], address }];
  });
  return [...listeners, { key: ["stats", "address"], address: stats.address }];
}

/** Two surfaces on one address, of which only one could be bound: told at the key that the file has. */
export function sharedAddresses(config: Config, isWritten: (key: KeyPath) => boolean): Remark[] {
  const all = surfaceAddresses(config);
  return all.flatMap((later, at) => {
    const earlier = all.slice(0, at).find((one) => overlap(one.address, later.address));
    if (earlier === undefined) return [];
    const [told, other] = isWritten(later.key) ? [later, earlier] : [earlier, later];
    const default_ = isWritten(other.key) ? "" : ", its default";
    return [
      {
        path: told.key,
        message: `listens where ${formatKeyPath(other.key)} does (${other.address}${default_}): give one of them another port`,
      },
    ];
  });
}

function overlap(one: string, other: string): boolean {
  const [a, b] = [parseListenAddress(one), parseListenAddress(other)];
  if (a === undefined || b === undefined || a.port === 0 || a.port !== b.port) return false;
  return covers(a.host, b.host) || covers(b.host, a.host);
}

/** Whether whoever listens on the first host takes connections to the second one, too. */
function covers(host = "0.0.0.0", other = "0.0.0.0"): boolean {
  const [wide, narrow] = [named(host), named(other)];
  if (wide === narrow || wide === "::") return true;
  return wide === "0.0.0.0" && (isIPv4(narrow) || !isIPv6(narrow));
}

function named(host: string): string {
  return host.toLowerCase() === "localhost" ? "127.0.0.1" : host.toLowerCase();
}
