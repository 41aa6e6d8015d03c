/** Where a permitted destination may be dialled. */
import { BoundedMap } from "../../bounded-map.ts";
import { AddressSet, parseAddress } from "../../net/address.ts";
import type { Grant } from "../../policy/decision.ts";
import type { ConnectFacts } from "../../policy/request-facts.ts";

/** The addresses that a permitted destination may be dialled at; undefined leaves that to the address guard. */
export function addressesOf({ host }: ConnectFacts, grant: Grant): AddressSet | undefined {
  if (grant.allowedIps !== undefined) return grant.allowedIps;
  // An address that the policy lists by itself is meant, also where private networks are closed. A name ends in a letter.
  return grant.isExactHost && /[\d:]$|:/.test(host) ? literalOf(host) : undefined;
}

/** Literals that policies list are few, so that they are parsed once each. */
const literals = new BoundedMap<string, AddressSet | undefined>(1_024);

function literalOf(host: string): AddressSet | undefined {
  return literals.getOrMake(host, () =>
    parseAddress(host) === undefined ? undefined : AddressSet.parse([host]),
  );
}
