/** The domain that a name stands under: the one that the file names, else the one that somebody can register. */
import { BoundedMap } from "../../bounded-map.ts";

const maxNames = 10_000;
/** Second levels under which countries register: co.uk, com.au. */
const registries = new Set(
  "ac co com edu gob gov govt ltd mil ne net nom or org plc sch".split(" "),
);

/** The domains of one limit. */
export class Domains {
  /** What stands behind the star of a pattern, the longest first. */
  readonly #bases: readonly string[];
  readonly #known = new BoundedMap<string, string>(maxNames);

  constructor(patterns: readonly string[]) {
    const bases = patterns.flatMap((pattern) => {
      const [, base] = /^\*{1,2}\.([\w-]+(?:\.[\w-]+)*)\.?$/.exec(pattern.toLowerCase()) ?? [];
      return base === undefined ? [] : [base];
    });
    this.#bases = bases.toSorted((one, other) => other.length - one.length);
  }

  /** Of a canonical host; an address is its own. */
  of(host: string, isAddress: boolean): string {
    if (isAddress) return host;
    return this.#known.getOrMake(host, () => this.#find(host));
  }

  #find(host: string): string {
    const named = this.#bases.find((base) => host === base || host.endsWith(`.${base}`));
    if (named !== undefined) return named;
    const labels = host.split(".");
    const [second = "", top = ""] = labels.slice(-2);
    const isOfCountry = top.length === 2 && registries.has(second);
    return labels.slice(isOfCountry ? -3 : -2).join(".");
  }
}
