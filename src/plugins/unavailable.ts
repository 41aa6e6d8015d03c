/** Plugins that files for the Go program may name and that this version does not have: the start is refused in words. */
import type { PluginDefinition } from "../pipeline/plugin.ts";

function unavailable(name: string, description: string, instead: string): PluginDefinition {
  return Object.freeze({
    name,
    description,
    unavailable: instead,
    create: () => {
      throw new TypeError(`${name} cannot be created`);
    },
  });
}

const remove = "remove the entry, or set on_error: off on it";

/** One definition per name, each with what to do about it. */
export const unavailablePlugins: readonly PluginDefinition[] = [
  unavailable("cpex", "Runs policies of another engine on messages", remove),
  unavailable(
    "lineage-telemetry",
    "Sends spans that tie messages of agents together",
    `${remove}; telemetry.otlp sends the spans of this proxy, which tie them as well`,
  ),
];
