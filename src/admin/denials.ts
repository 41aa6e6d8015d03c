/** What policies refused, put together, and what would allow it: from which `policy suggest` learns. */
import type { PolicyAddition } from "../pipeline/plugin.ts";
import { type AdminRoute, failure, json } from "./server.ts";

/** What one plugin instance has observed. */
export interface PluginObservations {
  readonly plugin: string;
  readonly observed: unknown;
}

/** What the responses are made of. */
export interface DenialSources {
  observations(): readonly PluginObservations[];
  /** `chosen`: host, port and executable of refusals, `HOST:PORT EXECUTABLE`. */
  additions(
    chosen: ReadonlySet<string>,
  ): readonly { readonly plugin: string; readonly addition: PolicyAddition }[];
}

const maxChosen = 512;

/** The routes; they are part of the session API because hosts and paths are for the operator only. */
export function denialRoutes(sources: DenialSources): AdminRoute[] {
  return [
    {
      path: "/v1/policy/denials",
      handle: () => json({ instances: sources.observations() }),
    },
    {
      path: "/v1/policy/suggestion",
      handle: ({ query }) => {
        const chosen = new Set(query.getAll("denial"));
        if (chosen.size === 0 || chosen.size > maxChosen) {
          const message = `denial names what to allow, HOST:PORT EXECUTABLE, 1 to ${maxChosen} times`;
          return failure(400, "request.malformed", message);
        }
        return json({ instances: sources.additions(chosen) });
      },
    },
  ];
}
