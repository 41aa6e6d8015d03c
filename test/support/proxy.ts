/** A proxy with every listener on a free loopback port, and the files that it runs with. */
import { fileURLToPath } from "node:url";
import { eventually } from "./eventually.ts";
import { launch, type ProcessOptions, Program, type Settings } from "./program.ts";

/** The module with the plugins of the journey tests. */
export const journeyPlugins = fileURLToPath(new URL("journey-plugins.ts", import.meta.url));

const isMap = (value: unknown): value is Settings =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Merges maps key by key; anything else of `over` replaces what `under` has. */
export function merge(under: Settings, over: Settings): Settings {
  const merged: Record<string, unknown> = { ...under };
  for (const [key, value] of Object.entries(over)) {
    const base = merged[key];
    merged[key] = isMap(base) && isMap(value) ? merge(base, value) : value;
  }
  return merged;
}

/** A file whose listeners are all on free loopback ports and that may dial loopback; `over` is merged into it. */
export function settings(over: Settings = {}): Settings {
  const base = {
    listener: {
      forward_proxy_addr: "127.0.0.1:0",
      reverse_proxy_addr: "127.0.0.1:0",
      session_api_addr: "127.0.0.1:0",
      health_addr: "127.0.0.1:0",
      transparent_proxy_addr: "off",
    },
    stats: { address: "127.0.0.1:0" },
    egress: { allow_ips: ["127.0.0.0/8"] },
    reload: { debounce: "50ms" },
    plugin_modules: [journeyPlugins],
  };
  const merged = merge(base, over);
  const { listener } = merged;
  if (isMap(listener) && listener["roles"] === undefined) {
    const roles = listener["reverse_proxy_backend"] === undefined ? ["forward"] : undefined;
    if (roles !== undefined) return merge(merged, { listener: { roles } });
  }
  return merged;
}

/** The chain of one direction, with the wrapping that the file wants. */
export function outbound(...plugins: unknown[]): Settings {
  return { pipeline: { outbound: { plugins } } };
}

export function inbound(...plugins: unknown[]): Settings {
  return { pipeline: { inbound: { plugins } } };
}

/** A proxy that reloads its file. */
export class ProxyProcess extends Program {
  /** Starts the program and waits until everything is bound. */
  static async start(config: Settings | string, options?: ProcessOptions): Promise<ProxyProcess> {
    return new ProxyProcess(await launch(config, options)).serving();
  }

  /** The answer of /reload/status. */
  async reloadStatus(): Promise<{
    readonly reloads_ok: number;
    readonly reloads_failed: number;
    readonly last_error: string;
    readonly active_config_sha256: string;
    readonly last_success: string;
    readonly last_attempt: string;
  }> {
    return JSON.parse((await this.stats("/reload/status")).text) as Awaited<
      ReturnType<ProxyProcess["reloadStatus"]>
    >;
  }

  /** Replaces the file and waits until it serves. */
  async reload(config: Settings | string): Promise<void> {
    const before = (await this.reloadStatus()).reloads_ok;
    await this.rewriteConfig(config);
    await eventually(async () => (await this.reloadStatus()).reloads_ok > before);
  }

  /** Replaces the file and waits until it was refused; the answer is why. */
  async refusedReload(config: Settings | string): Promise<string> {
    const before = (await this.reloadStatus()).reloads_failed;
    await this.rewriteConfig(config);
    return eventually(async () => {
      const status = await this.reloadStatus();
      return status.reloads_failed > before && status.last_error;
    });
  }
}
