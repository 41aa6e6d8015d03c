/**
 * `egress`: which addresses may be dialled, and how names become addresses.
 */
import { z } from "zod";
import { addressBlock, dnsServer, duration, ipAddress, listOf } from "./value-schema.ts";
import { guarded } from "../yaml/empty-values.ts";

/** The `egress` block. */
export const egressSchema = z.strictObject({
  allow_ips: listOf(addressBlock()).describe(
    "Addresses and CIDR blocks that may be dialled although they are of a special use, such as loopback. Default [].",
  ),
  private_networks: guarded(
    z
      .enum(["allow", "deny"])
      .default("allow")
      .describe("Whether private addresses (RFC 1918, fc00::/7) may be dialled. Default allow."),
  ),
  resolve_timeout: duration().default("5s").describe("Time to resolve one name. Default 5s."),
  dns_servers: listOf(dnsServer(), 16).describe(
    "DNS servers to ask, each an address with an optional port. Default [], which uses the resolver of the system.",
  ),
  hosts: z
    .record(
      z.string().regex(/^[^\s:*/]+$/, { error: "must be a host name" }),
      z.array(ipAddress()).min(1).max(64),
    )
    .default({})
    .describe("Names with fixed addresses, asked before DNS, as in /etc/hosts. Default {}."),
});
