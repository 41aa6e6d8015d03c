/** Addresses that names have had lately: services with many addresses answer with others each time they are asked. */
import type { IpAddress } from "../net/address.ts";

const memoryMs = 600_000;
const maxNames = 1_024;
const maxAddresses = 128;

/** Remembers answers of the resolver; names that were asked for longest ago go first. */
export class RecentAnswers {
  readonly #names = new Map<string, Map<string, number>>();
  readonly #now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  add(name: string, addresses: readonly IpAddress[]): void {
    const known = this.#names.get(name) ?? new Map<string, number>();
    this.#names.delete(name);
    this.#names.set(name, known);
    const now = this.#now();
    for (const address of addresses) {
      const text = address.toString();
      known.delete(text);
      known.set(text, now);
    }
    trim(known, maxAddresses);
    trim(this.#names, maxNames);
  }

  /** Whether the name had this address within the last ten minutes. */
  has(name: string, address: IpAddress): boolean {
    const seen = this.#names.get(name)?.get(address.toString());
    return seen !== undefined && this.#now() - seen < memoryMs;
  }
}

function trim(map: Map<string, unknown>, limit: number): void {
  for (const oldest of map.keys()) {
    if (map.size <= limit) return;
    map.delete(oldest);
  }
}
