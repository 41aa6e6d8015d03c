/** Plugins that take secrets of this proxy's own from sources, which are opened, begun, asked and closed with the plugin. */
import {
  definePlugin,
  type Plugin,
  type PluginDefinition,
  type PluginDeps,
} from "../../pipeline/plugin.ts";
import { unusedIdentityKeys } from "./client-identity-config.ts";
import { secretOrigins } from "./secret-config.ts";
import { type NamedSource, SecretSet } from "./secret-set.ts";

/** The definition of such a plugin. */
export interface SecretUser<Config> extends Omit<PluginDefinition<Config>, "create"> {
  /** The sources that this configuration names. */
  sources(config: Config): readonly NamedSource[];
  create(config: Config, deps: PluginDeps, secrets: SecretSet): Plugin;
}

/** The definition that a pipeline names: the plugin may call what its sources ask, and is ready when they have given. */
export function defineSecretUser<Config>(user: SecretUser<Config>): PluginDefinition<Config> {
  return definePlugin<Config>({
    ...user,
    origins: (config) => [
      ...new Set([
        ...(user.origins?.(config) ?? []),
        ...user.sources(config).flatMap((named) => secretOrigins(named.config)),
      ]),
    ],
    unused: (config, direction) => [
      ...(user.unused?.(config, direction) ?? []),
      ...user.sources(config).flatMap(({ path, config: source }) => {
        const identity = "identity" in source ? source.identity : undefined;
        return identity === undefined ? [] : unusedIdentityKeys(identity, [...path, "identity"]);
      }),
    ],
    create: (config, deps) => {
      const named = user.sources(config);
      const secrets = new SecretSet(named, deps);
      try {
        const plugin = user.create(config, deps, secrets);
        return named.length === 0 ? plugin : withSecrets(plugin, secrets);
      } catch (error) {
        secrets.close();
        throw error;
      }
    },
  });
}

/** The sources of a configuration; none for a plugin that takes none. */
export function sourcesOf(definition: PluginDefinition, config: unknown): readonly NamedSource[] {
  return (definition as Partial<SecretUser<unknown>>).sources?.(config) ?? [];
}

function withSecrets(plugin: Plugin, secrets: SecretSet): Plugin {
  const start = plugin.start?.bind(plugin);
  const ready = plugin.ready?.bind(plugin);
  const close = plugin.close?.bind(plugin);
  return Object.assign(plugin, {
    start: async (signal: AbortSignal): Promise<void> => {
      secrets.begin();
      await start?.(signal);
    },
    ready: (): true | string => {
      const own = secrets.ready();
      return own === true ? (ready?.() ?? true) : own;
    },
    close: async (): Promise<void> => {
      secrets.close();
      await close?.();
    },
  });
}
