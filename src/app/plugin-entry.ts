/** One entry of a chain, from the file's spelling. */
import type { Config } from "../config/presets.ts";
import type { PluginEntry } from "../pipeline/assemble.ts";

/** Keys that are absent stay absent. */
export function entryOf(entry: Config["pipeline"]["inbound"]["plugins"][number]): PluginEntry {
  return {
    name: entry.name,
    onError: entry.on_error,
    allowWeakenedAuth: entry.allow_weakened_auth,
    ...(entry.id === undefined ? {} : { id: entry.id }),
    ...(entry.config === undefined ? {} : { config: entry.config }),
  };
}
