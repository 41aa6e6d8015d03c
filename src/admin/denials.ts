/** What policies refused, put together, and what would allow it: from which `policy suggest` learns. */
import { type AdminRoute, failure, json } from "./server.ts";

/** What one plugin instance has observed. */
export interface PluginObservations {
  readonly plugin: string;
  readonly observed: unknown;
}

/** The smallest addition to the policy that allows what was chosen. */
export interface PolicyAddition {
  /** In the format of policy files, with the risk of each line. */
  readonly text: string;
  /** Where the policy is kept; absent where it stands in the proxy's own file. */
  readonly file?: string | undefined;
}

/** What the responses are made of. */
export interface DenialSources {
  observations(): readonly PluginObservations[];
  /** `chosen`: host, port and executable of refusals, `HOST:PORT EXECUTABLE`. */
  addition(chosen: ReadonlySet<string>): PolicyAddition;
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
        return json(sources.addition(chosen));
      },
    },
  ];
}
