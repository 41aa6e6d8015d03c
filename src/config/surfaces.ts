/** The surfaces of the process: each with the key of its address, and what follows from that. */
import { isIPv4, isIPv6 } from "node:net";
import { parseListenAddress } from "./listen-address.ts";
import { formatKeyPath, type KeyPath } from "../yaml/problem.ts";
import type { Remark } from "../yaml/schema-remarks.ts";

/** A role of the proxy in the file. */
export type Role = "reverse" | "forward";

/** One listener of the data plane, or one server of the operator's. */
interface Surface {
  readonly key: readonly ["listener" | "stats", string];
  /** Where it listens when the file does not say. */
  readonly address: string;
  /** The role that opens it; without one it belongs to both. */
  readonly role?: Role;
  /** May be missing although the process does its work. */
  readonly optional?: true;
  /** For what the kernel redirects; no client knows of it. */
  readonly captured?: true;
}

/** By the name that logs, status and messages use, in the order in which they are listed. */
export const surfaces = {
  reverse: { key: ["listener", "reverse_proxy_addr"], address: ":8080", role: "reverse" },
  forward: { key: ["listener", "forward_proxy_addr"], address: ":8081", role: "forward" },
  transparent: {
    key: ["listener", "transparent_proxy_addr"],
    address: ":8082",
    role: "forward",
    optional: true,
    captured: true,
  },
  transparent_inbound: {
    key: ["listener", "transparent_inbound_addr"],
    address: ":8083",
    role: "reverse",
  },
  socks: { key: ["listener", "socks_proxy_addr"], address: ":1080", role: "forward" },
  // The Go program listened on all interfaces by default; what agents send is for the operator only.
  sessions: { key: ["listener", "session_api_addr"], address: "127.0.0.1:9094", optional: true },
  health: { key: ["listener", "health_addr"], address: ":9091" },
  stats: { key: ["stats", "address"], address: ":9093" },
} as const satisfies Record<string, Surface>;

/** The name of a surface. */
export type SurfaceName = keyof typeof surfaces;

/** A key of the `listener` block that holds an address. */
export type AddressKey = Extract<
  (typeof surfaces)[SurfaceName]["key"],
  readonly ["listener", string]
>[1];

/** The rows that are about the `listener` block. */
export const listenerSurfaces = Object.entries<Surface>(surfaces).flatMap(([name, row]) => {
  const [block, key] = row.key as readonly [string, AddressKey];
  return block === "listener" ? [{ ...row, name: name as SurfaceName, key }] : [];
});

/** One address. */
export interface SurfaceAddress {
  readonly name: SurfaceName;
  readonly key: KeyPath;
  readonly address: string;
}

/** What a configuration says of addresses; an absent one is a surface that is not opened. */
interface Addresses {
  readonly listener: { readonly [Key in AddressKey]?: string };
  readonly stats: { readonly address: string };
}

/** The key of a surface's address, as people write it. */
export function surfaceKey(name: SurfaceName): string {
  return formatKeyPath(surfaces[name].key);
}

/** Every address of a configuration. */
export function surfaceAddresses({ listener, stats }: Addresses): readonly SurfaceAddress[] {
  const listeners = listenerSurfaces.flatMap(({ name, key }): SurfaceAddress[] => {
    const address = listener[key];
    return address === undefined ? [] : [{ name, key: ["listener", key], address }];
  });
  return [...listeners, { name: "stats", key: surfaces.stats.key, address: stats.address }];
}

/** Two surfaces on one address, of which only one could be bound: reported at the key that the file has. */
export function sharedAddresses(config: Addresses, isWritten: (key: KeyPath) => boolean): Remark[] {
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
