/** What a message adds to limits of distinct things: hosts, names below a domain, and bits in names and targets. */
import { hash } from "node:crypto";
import { BoundedMap } from "../../bounded-map.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import type { DistinctUnit, Limit } from "./limit.ts";
import { randomLookingBits } from "./random-looking.ts";

/** Something that is counted the first time only. */
export interface Distinct {
  readonly amount: number;
  readonly member: string;
}

const maxKnown = 10_000;
const digestLength = 22;

/** The distinct things of one instance. */
export class DistinctThings {
  readonly #digests = new BoundedMap<string, string>(maxKnown);
  readonly #bits = new BoundedMap<string, number>(maxKnown);

  /** Undefined where the message adds nothing to the limit. */
  of(context: RequestContext, limit: Limit, unit: DistinctUnit): Distinct | undefined {
    const { host, isAddress, authority } = context.destination;
    switch (unit) {
      case "hosts":
        return { amount: 1, member: this.#digestOf(host) };
      case "subdomains": {
        const isBelow = !isAddress && limit.domainOf(context.destination) !== host;
        return isBelow ? { amount: 1, member: this.#digestOf(host) } : undefined;
      }
      case "name_entropy": {
        const domain = limit.domainOf(context.destination);
        if (isAddress || domain === host) return undefined;
        const below = host.slice(0, -domain.length - 1);
        const amount = this.#bits.getOrMake(below, () => randomLookingBits(below));
        return { amount, member: this.#digestOf(host) };
      }
      case "url_entropy": {
        if (context.path.length <= 1) return undefined;
        const amount = randomLookingBits(context.path);
        return { amount, member: digestOf(`${authority}${context.path}`) };
      }
    }
  }

  #digestOf(host: string): string {
    return this.#digests.getOrMake(host, () => digestOf(host));
  }
}

/** Nobody reads in the store where agents have been. */
function digestOf(text: string): string {
  return hash("sha256", text, "base64url").slice(0, digestLength);
}
