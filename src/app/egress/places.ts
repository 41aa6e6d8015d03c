/** Limits of connections to origins and of DNS look-ups, and who is notified when one is exceeded. */
import type { Config } from "../../config/presets.ts";
import { durationMs } from "../../duration.ts";
import { type Claim, type PlaceLimit, Places } from "../../net/places.ts";
import type { Direction } from "../../pipeline/flow.ts";
import { SystemNames } from "../../net/system-names.ts";
import type { LookupPlaces } from "../../upstream/resolver.ts";
import { RareLog } from "../../telemetry/rare-log.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Metrics } from "../../telemetry/metrics.ts";

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

/** Threads of libuv's pool, where look-ups that cannot be cancelled would run (Node's `UV_THREADPOOL_SIZE`). */
const defaultThreads = 4;

/** Places for look-ups: the operator's names need none that agents can take. */
export function lookupPlaces(
  { max_name_lookups: all, max_name_lookups_per_caller: perCaller }: Config["limits"],
  egress: Config["egress"],
  { log, metrics }: { readonly log?: Logger; readonly metrics: Pick<Metrics, "counters"> },
): LookupPlaces {
  const rare = log === undefined ? undefined : new RareLog(log);
  const waitMs = durationMs(egress.resolve_timeout);
  const onRefused = (limit: PlaceLimit, { caller, destination }: Claim): void => {
    const bound = limit === "caller" ? limit : "all";
    metrics.counters.upstream_refused_total.of("lookup", bound).value += 1;
    const facts = { limit, caller, destination };
    rare?.warn(limit, facts, "a name was not looked up in time (limits.max_name_lookups)");
  };
  const places = (most: number, own: number): Places =>
    new Places({ all: most, perCaller: own, perDestination: most, waitMs, onRefused });
  if (egress.dns_servers.length > 0 || new SystemNames().isPlain)
    return { callers: places(all, perCaller), operator: places(all, all) };
  const threads = Number(process.env["UV_THREADPOOL_SIZE"]) || defaultThreads;
  const half = Math.max(1, Math.floor(threads / 2));
  const quarter = Math.max(1, Math.floor(threads / 4));
  return {
    callers: places(Math.min(all, half), Math.min(perCaller, half)),
    operator: places(quarter, quarter),
  };
}
