/** The address guard that the `egress` block of a file describes. */
import { durationMs } from "../../duration.ts";
import type { Config } from "../../config/presets.ts";
import { AddressSet, parseCidr } from "../../net/address.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import { AddressGuard } from "../../upstream/address-guard.ts";
import type { OwnListeners } from "../../upstream/own-listeners.ts";
import { createResolver } from "../../upstream/resolver.ts";
import { lookupPlaces } from "./places.ts";

/** What a guard needs besides the file. */
export interface GuardServices {
  readonly ownListeners: OwnListeners;
  readonly metrics: Pick<Metrics, "addressRefused" | "counters">;
  /** Absent where nothing flows. */
  readonly log?: Logger;
}

/** Makes the guard of one generation. */
export function addressGuardOf({ egress, limits }: Config, services: GuardServices): AddressGuard {
  return new AddressGuard({
    resolver: createResolver({
      timeoutMs: durationMs(egress.resolve_timeout),
      servers: egress.dns_servers,
      hosts: new Map(
        Object.entries(egress.hosts).map(([name, addresses]) => [name.toLowerCase(), addresses]),
      ),
      places: lookupPlaces(limits, egress, services),
    }),
    ownListeners: services.ownListeners,
    allowIps: new AddressSet(egress.allow_ips.map((block) => parseCidr(block))),
    privateNetworks: egress.private_networks,
    onRefused: (addressClass) => services.metrics.addressRefused(addressClass),
  });
}
