/** A configuration that is derived from a loaded one and is loaded like any other, without being written down. */
import { dirname, join, resolve } from "node:path";
import { writeFile } from "node:fs/promises";
import type { LoadedConfig } from "../config/load.ts";
import type { Config } from "../config/presets.ts";
import {
  type AddressKey,
  listenerSurfaces,
  surfaceAddresses,
  type SurfaceName,
} from "../config/surfaces.ts";

/** A file, and the environment that it has to be loaded with. */
export interface ProbeFile {
  readonly file: string;
  readonly env: Readonly<Record<string, string>>;
}

const variable = "AUTHBRIDGE_PROBE_CONFIG";

/**
 * The file holds the name of a variable and nothing else: a loaded configuration may contain secrets that came from the
 * environment, and those stay in memory.
 */
export async function writeProbeFile(
  directory: string,
  name: string,
  config: Config,
): Promise<ProbeFile> {
  const file = join(directory, `${name}.yaml`);
  await writeFile(file, `\${${variable}}\n`, { mode: 0o600 });
  return { file, env: { [variable]: JSON.stringify(config) } };
}

/** Loopback ports that nobody has to know, and nothing that the kernel redirects. */
export function freeAddresses(
  names: readonly SurfaceName[],
): Readonly<Partial<Record<AddressKey, string>>> {
  const asked = listenerSurfaces.filter(({ name }) => names.includes(name));
  return Object.fromEntries(asked.map(({ key, captured }) => [key, captured ? "off" : free]));
}

/** An address with a port that the kernel chooses. */
export const free = "127.0.0.1:0";

/** The same pipelines on loopback ports that nobody has to know, without reloads and with every flow logged. */
export function onFreePorts(loaded: LoadedConfig): Config {
  const { config, path } = loaded;
  const { listener, plugin_modules: modules } = config;
  // The instance is the doctor's own: it has no credentials of an agent, and nobody else reaches it.
  const { forward_proxy_tls: _tls, ...surfaces } = listener;
  const { callers: _callers, upstream_proxy: chain, ...rest } = config;
  // Others trust what is in the file, and this authority may be one of the instance's own.
  const { trust_bundle_file: _bundle, ...chained } = chain ?? {};
  return {
    ...rest,
    ...(chain === undefined ? {} : { upstream_proxy: chained as typeof chain }),
    workers: 1,
    // Nothing is redirected to it either.
    egress_enforcement: "none",
    acknowledge_cooperative_mode: true,
    listener: {
      ...surfaces,
      ...freeAddresses(surfaceAddresses(config).map(({ name }) => name)),
    },
    stats: { ...config.stats, address: free },
    reload: { ...config.reload, enabled: false },
    log: { level: "info" },
    plugin_modules: modules.map((module) => resolve(dirname(resolve(path)), module)),
  };
}

/** The same for an instance that only tries what the file says: it leaves nothing behind, and nothing is told of it. */
export function forProbing(loaded: LoadedConfig, directory: string): Config {
  const config = withReadableAuthority(onFreePorts(loaded), directory);
  const { spiffe, audit, session, state, telemetry } = config;
  const { persist } = session;
  const { otlp: _told, ...measured } = telemetry;
  const own = (name: string): { path: string } => ({ path: join(directory, name) });
  // The files are those of the proxy that serves: a second writer would break its decision log.
  return {
    ...config,
    telemetry: measured,
    session:
      persist === undefined ? session : { ...session, persist: { ...persist, ...own("events") } },
    state: state.store === "file" ? { ...state, ...own("state") } : state,
    kill_switch: {},
    ...(audit === undefined ? {} : { audit: { ...audit, ...own("audit") } }),
    ...(spiffe === undefined ? {} : { spiffe: { ...spiffe, mirror_files: false } }),
  };
}

/** A new authority where that of the file would exist in the memory of another process only. */
function withReadableAuthority(config: Config, directory: string): Config {
  if (config.tls_bridge.ca !== "ephemeral") return config;
  const bridge = { ca: "file", ca_dir: join(directory, "ca"), generate_ca: true } as const;
  return { ...config, tls_bridge: { ...config.tls_bridge, ...bridge } };
}
