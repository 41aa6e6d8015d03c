/** What is used of budgets, as far as this process has seen it: `GET /v1/budgets`. */
import { type AdminRoute, json } from "./server.ts";

/** The budgets of one plugin instance. */
export interface PluginBudgets {
  readonly plugin: string;
  readonly budgets: unknown;
}

/** The route; it is one of the session API, as users and sessions are for the operator's eyes. */
export function budgetRoutes(budgets: () => readonly PluginBudgets[]): AdminRoute[] {
  return [{ path: "/v1/budgets", handle: () => json({ instances: budgets() }) }];
}
