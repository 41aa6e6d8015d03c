/**
 * What mode and roles mean for a checked file: the addresses that were left out, and the hardening of the session API.
 */
import { toLoopback } from "./listen-address.ts";
import type { FileConfig } from "./schema.ts";

/** One surface of the proxy. */
export type Role = "reverse" | "forward";

type FileListener = FileConfig["listener"];

/** The `listener` block with every address decided. An absent address is a surface that is not opened. */
export interface ListenerConfig {
  readonly roles: readonly Role[];
  readonly reverse_proxy_addr?: string;
  readonly reverse_proxy_backend?: string;
  readonly forward_proxy_addr?: string;
  readonly forward_proxy_tls?: NonNullable<FileListener["forward_proxy_tls"]>;
  readonly transparent_proxy_addr?: string;
  readonly transparent: FileListener["transparent"];
  readonly session_api_addr?: string;
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
    stats: { address: stats.address || ":9093" },
  };
}

/** The roles that are active: both when the file names none. */
export function activeRoles(listener: FileListener): readonly Role[] {
  return listener.roles.length === 0 ? ["reverse", "forward"] : [...new Set(listener.roles)];
}

function transparentAddress(
  { transparent_proxy_addr: written }: FileListener,
  { callers, egress_enforcement: enforcement }: FileConfig,
): Pick<ListenerConfig, "transparent_proxy_addr"> {
  // A captured connection cannot say whose it is.
  if (callers !== undefined || written === "off") return {};
  // Where nothing redirects, nobody but strangers would come.
  if (!written && enforcement === "none") return {};
  return { transparent_proxy_addr: written || ":8082" };
}

function fillListener(listener: FileListener, file: FileConfig): ListenerConfig {
  const roles = activeRoles(listener);
  const reverse = roles.includes("reverse") && {
    reverse_proxy_addr: listener.reverse_proxy_addr || ":8080",
    ...(listener.reverse_proxy_backend
      ? { reverse_proxy_backend: listener.reverse_proxy_backend }
      : {}),
  };
  const forward = roles.includes("forward") && {
    forward_proxy_addr: listener.forward_proxy_addr || ":8081",
    ...(listener.forward_proxy_tls === undefined
      ? {}
      : { forward_proxy_tls: listener.forward_proxy_tls }),
    ...transparentAddress(listener, file),
  };
  // The Go program listened on all interfaces by default; what agents send is for the operator's eyes only.
  const sessionAddress = listener.session_api_addr || "127.0.0.1:9094";
  const isBridged = file.tls_bridge.mode === "enabled";
  const session = file.session.enabled && {
    session_api_addr: isBridged ? toLoopback(sessionAddress) : sessionAddress,
  };
  return {
    roles,
    ...reverse,
    ...forward,
    ...session,
    transparent: listener.transparent,
    health_addr: listener.health_addr || ":9091",
    skip_hosts: listener.skip_hosts,
  };
}
