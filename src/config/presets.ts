/**
 * What mode and roles mean for a checked file: the addresses that were left out, and the hardening of the session API.
 */
import { toLoopback } from "./listen-address.ts";
import type { FileConfig } from "./schema.ts";
import {
  type AddressKey,
  listenerSurfaces,
  type Role,
  type SurfaceName,
  surfaces,
} from "./surfaces.ts";

type FileListener = FileConfig["listener"];

/** The `listener` block with every address decided. An absent address is a surface that is not opened. */
export interface ListenerConfig extends Readonly<Partial<Record<AddressKey, string>>> {
  readonly roles: readonly Role[];
  readonly reverse_proxy_backend?: string;
  readonly forward_proxy_socks: boolean;
  readonly forward_proxy_tls?: NonNullable<FileListener["forward_proxy_tls"]>;
  readonly transparent: FileListener["transparent"];
  /** Absent where requests reach the agent through the reverse port. */
  readonly inbound_interception?: "transparent";
  readonly inbound_passthrough_ports?: readonly number[];
  readonly health_addr: string;
  readonly skip_hosts: readonly string[];
}

/** The configuration that the process runs with: what the file says, its defaults and its presets. */
export interface Config extends Omit<FileConfig, "mode" | "listener" | "egress_enforcement"> {
  readonly mode: "proxy-sidecar";
  readonly egress_enforcement: "enforce-redirect" | "none";
  readonly listener: ListenerConfig;
}

const defaultMaxEvents = 500;
const defaultMaxSessions = 100;

/** Fills what mode and roles imply. An address that the file gives is kept, unless the TLS bridge must confine it. */
export function applyPresets(file: FileConfig): Config {
  const { session, stats } = file;
  const listener = fillListener(file.listener, file);
  const captures = listener.transparent_proxy_addr !== undefined;
  const nothingRedirects = listener.roles.includes("forward") && !captures;
  return {
    ...file,
    mode: "proxy-sidecar",
    // What is shown is what is so: without the listener nothing that the kernel redirects could be served.
    egress_enforcement: file.egress_enforcement ?? (nothingRedirects ? "none" : "enforce-redirect"),
    listener,
    session: {
      ...session,
      max_events: session.max_events > 0 ? session.max_events : defaultMaxEvents,
      max_sessions: session.max_sessions > 0 ? session.max_sessions : defaultMaxSessions,
    },
    stats: { address: stats.address || surfaces.stats.address },
  };
}

/** The roles that are active: both when the file names none. */
export function activeRoles(listener: FileListener): readonly Role[] {
  return listener.roles.length === 0 ? ["reverse", "forward"] : [...new Set(listener.roles)];
}

/** Whether the file has no use for a surface of its roles. */
function isClosed(name: SurfaceName, { listener, ...file }: FileConfig): boolean {
  if (name === "sessions") return !file.session.enabled;
  // The forward port speaks SOCKS as well.
  if (name === "socks") return !listener.socks_proxy_addr;
  const isInboundCaptured = listener.inbound_interception === "transparent";
  if (name === "transparent_inbound") return !isInboundCaptured;
  // Without a backend it would have nothing to serve.
  if (name === "reverse") return isInboundCaptured && !listener.reverse_proxy_backend;
  if (name !== "transparent") return false;
  const { transparent_proxy_addr: written } = listener;
  // A captured connection cannot say whose it is.
  if (file.callers !== undefined || written === "off") return true;
  // Where nothing redirects, nobody but strangers would come.
  return !written && file.egress_enforcement === "none";
}

function fillListener(listener: FileListener, file: FileConfig): ListenerConfig {
  const roles = activeRoles(listener);
  const addresses: Partial<Record<AddressKey, string>> = {};
  for (const { name, key, role, address } of listenerSurfaces) {
    if ((role !== undefined && !roles.includes(role)) || isClosed(name, file)) continue;
    const chosen = listener[key] || address;
    const isConfined = name === "sessions" && file.tls_bridge.mode === "enabled";
    addresses[key] = isConfined ? toLoopback(chosen) : chosen;
  }
  const { reverse_proxy_backend: backend, forward_proxy_tls: tls } = listener;
  return {
    health_addr: surfaces.health.address,
    ...addresses,
    roles,
    ...(roles.includes("reverse") && backend ? { reverse_proxy_backend: backend } : {}),
    ...(roles.includes("forward") && tls !== undefined ? { forward_proxy_tls: tls } : {}),
    forward_proxy_socks: listener.forward_proxy_socks,
    transparent: listener.transparent,
    ...(addresses.transparent_inbound_addr === undefined
      ? {}
      : {
          inbound_interception: "transparent",
          inbound_passthrough_ports: listener.inbound_passthrough_ports,
        }),
    skip_hosts: listener.skip_hosts,
  };
}
