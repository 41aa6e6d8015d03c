/** Which SPIFFE IDs are welcome: `spiffe://td` is a trust domain, `spiffe://td/a/b` one ID, `spiffe://td/a/*` all below. */
import { parseSpiffeId, type SpiffeId } from "./spiffe-id.ts";

const anythingBelow = "/*";

/** What is wrong with a pattern, or undefined. */
export function allowedIdProblem(pattern: string): string | undefined {
  const id = parseSpiffeId(prefixOf(pattern) ?? pattern);
  if (typeof id !== "string") return undefined;
  const forms = "spiffe://domain, spiffe://domain/path or spiffe://domain/path/*";
  return `must be ${forms}: ${id}`;
}

/** The IDs of a list; without a list, every ID whose trust domain has a bundle. */
export class AllowedIds {
  readonly #isOpen: boolean;
  readonly #exact = new Set<string>();
  readonly #domains = new Set<string>();
  readonly #prefixes: string[] = [];

  /** The patterns have no problem, see {@link allowedIdProblem}. */
  constructor(patterns?: readonly string[]) {
    this.#isOpen = patterns === undefined;
    for (const pattern of patterns ?? []) {
      const prefix = prefixOf(pattern);
      // The slash stays: `/ns/a/*` is not `/ns/ab/x`.
      if (prefix !== undefined) this.#prefixes.push(`${prefix}/`);
      else if (pattern.indexOf("/", "spiffe://".length) === -1) this.#domains.add(pattern);
      else this.#exact.add(pattern);
    }
  }

  allows({ text, trustDomain }: SpiffeId): boolean {
    return (
      this.#isOpen ||
      this.#exact.has(text) ||
      this.#domains.has(`spiffe://${trustDomain}`) ||
      this.#prefixes.some((prefix) => text.startsWith(prefix))
    );
  }
}

function prefixOf(pattern: string): string | undefined {
  return pattern.endsWith(anythingBelow) ? pattern.slice(0, -anythingBelow.length) : undefined;
}
