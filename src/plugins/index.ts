/** The plugins that come with the proxy. */
import type { AnyPluginDefinition, PluginDefinition } from "../pipeline/plugin.ts";
import { a2aParser } from "./a2a-parser.ts";
import { egressPolicy } from "./egress-policy.ts";
import { ibac } from "./ibac.ts";
import { inferenceParser } from "./inference-parser.ts";
import { jwtValidation } from "./jwt-validation.ts";
import { mcpParser } from "./mcp-parser.ts";
import { opa } from "./opa.ts";
import { staticInject } from "./static-inject.ts";
import { tokenExchange } from "./token-exchange.ts";
import { toolPolicy } from "./tool-policy.ts";
import { unavailablePlugins } from "./unavailable.ts";

/** The assembler parses an entry's configuration with the definition's own schema before `create` sees it. */
function hidden<Config>(definition: PluginDefinition<Config>): AnyPluginDefinition {
  return definition as unknown as AnyPluginDefinition;
}

/** Every name that a chain may use without `plugin_modules`. */
export const builtinPlugins: readonly AnyPluginDefinition[] = [
  hidden(jwtValidation),
  hidden(tokenExchange),
  hidden(staticInject),
  hidden(egressPolicy),
  hidden(opa),
  hidden(a2aParser),
  hidden(inferenceParser),
  hidden(mcpParser),
  hidden(ibac),
  hidden(toolPolicy),
  ...unavailablePlugins.map(hidden),
];
