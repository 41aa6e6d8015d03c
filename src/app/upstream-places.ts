/** How many connections to origins there may be, and who hears of those that there are not. */
import type { Config } from "../config/presets.ts";
import { durationMs } from "../duration.ts";
import { Places } from "../net/places.ts";
import type { Direction } from "../pipeline/flow.ts";
import { RareLog } from "../telemetry/rare-log.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";

/** Places for the requests of each direction: what agents ask for takes nothing from those who ask the agent. */
export function connectionPlaces(
  limits: Config["limits"],
  { log, metrics }: { readonly log: Logger; readonly metrics: Metrics },
): Readonly<Record<Direction, Places>> {
  const {
    max_upstream_connections: all,
    max_upstream_connections_per_destination: perDestination,
    max_upstream_connections_per_caller: perCaller,
  } = limits;
  const rare = new RareLog(log);
  const places = (direction: Direction, bounds: [destination: number, caller: number]): Places =>
    new Places({
      all,
      perDestination: bounds[0],
      perCaller: bounds[1],
      waitMs: durationMs(limits.connect_timeout),
      onRefused: (limit, { caller, destination }) => {
        metrics.counters.upstream_refused_total.of("connection", limit).value += 1;
        rare.warn(
          `${direction} ${limit}`,
          { direction, limit, caller, destination },
          "a request found no free connection to its origin (limits.max_upstream_connections)",
        );
      },
    });
  return {
    // One backend, and callers that may all stand behind one gateway.
    inbound: places("inbound", [all, all]),
    outbound: places("outbound", [perDestination, perCaller]),
  };
}
