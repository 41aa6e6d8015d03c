/** Addresses that names have had lately: services with many addresses answer with others each time they are asked. */
import { BoundedMap } from "../bounded-map.ts";
import type { IpAddress } from "../net/address.ts";

const memoryMs = 600_000;
const maxNames = 1_024;
const maxAddresses = 128;

/** Remembers answers of the resolver; names that were asked for longest ago go first. */
export class RecentAddresses {
  readonly #names = new BoundedMap<string, BoundedMap<string, number>>(maxNames);
  readonly #now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  add(name: string, addresses: readonly IpAddress[]): void {
    const known = this.#names.get(name) ?? new BoundedMap<string, number>(maxAddresses);
    this.#names.renew(name, known);
    const now = this.#now();
    for (const address of addresses) known.renew(address.toString(), now);
  }

  /** Whether the name had this address within the last ten minutes. */
  has(name: string, address: IpAddress): boolean {
    const seen = this.#names.get(name)?.get(address.toString());
    return seen !== undefined && this.#now() - seen < memoryMs;
  }
}
