/** What is used of the budgets that this process has seen: `GET /v1/budgets`. */
import { type AdminRoute, json } from "./server.ts";

/** The budgets of one plugin instance. */
export interface PluginBudgets {
  readonly plugin: string;
  readonly budgets: unknown;
}

/** Those of both pipelines. */
export interface DirectedBudgets {
  readonly inbound: readonly PluginBudgets[];
  readonly outbound: readonly PluginBudgets[];
}

/** The route; it is one of the session API, as users and sessions are for the operator's eyes. */
export function budgetRoutes(budgets: () => Promise<readonly PluginBudgets[]>): AdminRoute[] {
  return [{ path: "/v1/budgets", handle: async () => json({ instances: await budgets() }) }];
}
