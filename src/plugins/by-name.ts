/** The plugins that come with the proxy, each loaded when it is asked for. */
import type { AnyPluginDefinition, PluginDefinition } from "../pipeline/plugin.ts";
import { unavailablePlugins } from "./unavailable.ts";

type Load = () => Promise<AnyPluginDefinition>;

/** The assembler parses an entry's configuration with the definition's own schema before `create` sees it. */
function hidden<Config>(definition: PluginDefinition<Config>): AnyPluginDefinition {
  return definition as unknown as AnyPluginDefinition;
}

// All of them together are 160 files, with jose, and cost 50 ms and 12 MB of a start that names none of them.
const loaders: ReadonlyMap<string, Load> = new Map<string, Load>([
  [
    "jwt-validation",
    async () => hidden((await import("./jwt-validation/plugin.ts")).jwtValidation),
  ],
  [
    "token-exchange",
    async () => hidden((await import("./token-exchange/plugin.ts")).tokenExchange),
  ],
  ["token-broker", async () => hidden((await import("./token-broker/plugin.ts")).tokenBroker)],
  ["static-inject", async () => hidden((await import("./static-inject/plugin.ts")).staticInject)],
  ["aws-sigv4", async () => hidden((await import("./aws-sigv4/plugin.ts")).awsSigv4)],
  ["egress-policy", async () => hidden((await import("./egress-policy/plugin.ts")).egressPolicy)],
  ["ext-authz", async () => hidden((await import("./ext-authz/plugin.ts")).extAuthz)],
  ["opa", async () => hidden((await import("./opa/plugin.ts")).opa)],
  ["dlp", async () => hidden((await import("./dlp/plugin.ts")).dlp)],
  ["a2a-parser", async () => hidden((await import("./parsers/a2a.ts")).a2aParser)],
  [
    "inference-parser",
    async () => hidden((await import("./parsers/inference.ts")).inferenceParser),
  ],
  ["mcp-parser", async () => hidden((await import("./parsers/mcp.ts")).mcpParser)],
  ["budgets", async () => hidden((await import("./budgets/plugin.ts")).budgets)],
  [
    "litellm-budget-track",
    async () => hidden((await import("./budgets/litellm.ts")).litellmBudgetTrack),
  ],
  [
    "session-budget",
    async () => hidden((await import("./budgets/session-budget.ts")).sessionBudget),
  ],
  ["ibac", async () => hidden((await import("./ibac/plugin.ts")).ibac)],
  ["sparc", async () => hidden((await import("./sparc/plugin.ts")).sparc)],
  ["context-guru", async () => hidden((await import("./context-guru/plugin.ts")).contextGuru)],
  ["tool-policy", async () => hidden((await import("./tool-policy/plugin.ts")).toolPolicy)],
  ["prompt-guard", async () => hidden((await import("./prompt-guard/plugin.ts")).promptGuard)],
  ...unavailablePlugins.map((definition): [string, Load] => [
    definition.name,
    () => Promise.resolve(hidden(definition)),
  ]),
]);

/** Every name that a pipeline may use without `plugin_modules`. */
export const builtinNames: readonly string[] = [...loaders.keys()];

/** The definitions of these names, in the order of {@link builtinNames}; names that are none of them are left out. */
export function loadPlugins(names: ReadonlySet<string>): Promise<readonly AnyPluginDefinition[]> {
  const wanted = [...loaders].filter(([name]) => names.has(name));
  return Promise.all(wanted.map(([, load]) => load()));
}
