/** Field names that software behind a gateway reads as one and the same. */
import type { HeaderList } from "./headers.ts";

/**
 * The spelling that all aliases of a field name share.
 *
 * CGI-style servers fold `-`, `_` and some `.` into one character, so `X_User` and `X.User` reach an application as
 * `X-User` (CVE-2026-54763 and CVE-2026-88011 of Traefik are of this kind).
 */
export function foldedName(name: string): string {
  return name.toLowerCase().replace(/[_.]/g, "-");
}

/** Names that clients may make up are remembered up to this many; the usual ones are few. */
const maxRemembered = 512;

/** A set of field names, where an entry that ends in `*` stands for all that begin like it. */
export class FieldNames {
  readonly #exact = new Set<string>();
  readonly #prefixes: string[] = [];
  readonly #known = new Map<string, boolean>();

  constructor(names: readonly string[]) {
    for (const name of names) {
      const folded = foldedName(name);
      if (folded.endsWith("*")) this.#prefixes.push(folded.slice(0, -1));
      else this.#exact.add(folded);
    }
  }

  has(name: string): boolean {
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const folded = foldedName(name);
    const isListed =
      this.#exact.has(folded) || this.#prefixes.some((prefix) => folded.startsWith(prefix));
    if (this.#known.size < maxRemembered) this.#known.set(name, isListed);
    return isListed;
  }

  /** Deletes every field of the set, whatever its spelling, and says how many lines there were. */
  removeFrom(headers: HeaderList): number {
    const { raw } = headers;
    let found: string[] | undefined;
    for (let at = 0; at < raw.length; at += 2) {
      const name = raw[at] ?? "";
      if (this.has(name)) (found ??= []).push(name);
    }
    if (found === undefined) return 0;
    for (const name of found) headers.delete(name);
    return found.length;
  }
}
