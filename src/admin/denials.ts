/** What policies refused, put together: `GET /v1/policy/denials`, from which `policy suggest` learns. */
import { type AdminRoute, json } from "./server.ts";

/** What one plugin instance has observed. */
export interface PluginObservations {
  readonly plugin: string;
  readonly observed: unknown;
}

/** The route; it is part of the session API because hosts and paths are for the operator only. */
export function denialRoutes(observations: () => readonly PluginObservations[]): AdminRoute[] {
  return [{ path: "/v1/policy/denials", handle: () => json({ instances: observations() }) }];
}
