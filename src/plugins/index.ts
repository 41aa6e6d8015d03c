/** The plugins that come with the proxy, all at once: for commands and views that show every one. */
import { builtinNames, loadPlugins } from "./by-name.ts";

/** Every definition that a pipeline may use without `plugin_modules`. */
export const builtinPlugins = await loadPlugins(new Set(builtinNames));
