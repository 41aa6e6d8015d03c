/** Who acts for the subject of a token: its nested `act` claims (RFC 8693 section 4.1). */

/** The longest chain that is read; of a longer one, this many actors and one. */
export const longestChain = 64;

/**
 * The actors, the current one first; empty where the subject acts for itself, undefined where the claim is malformed.
 *
 * An actor is named by the claims that identify it: its issuer, where there is one, and its subject or client.
 */
export function actorsOf(act: unknown): readonly string[] | undefined {
  const actors: string[] = [];
  for (let claim: unknown = act; isThere(claim) && actors.length <= longestChain;) {
    if (typeof claim !== "object" || Array.isArray(claim)) return undefined;
    const actor = claim as Readonly<Record<string, unknown>>;
    const name = [actor["sub"], actor["client_id"], actor["azp"]].find((value) => isName(value));
    if (name === undefined) return undefined;
    actors.push(isName(actor["iss"]) ? `${actor["iss"]} ${name}` : name);
    claim = actor["act"];
  }
  return actors;
}

/** Issuers of the field write null for what they leave out. */
function isThere(claim: unknown): boolean {
  return claim !== undefined && claim !== null;
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}

/** Whether those who have acted before are still named by a newer token: they are the end of its chain. */
export function isKept(before: readonly string[], after: readonly string[]): boolean {
  const start = after.length - before.length;
  return start >= 0 && before.every((actor, at) => after[start + at] === actor);
}

/** How many there are, as far as they were read. */
export function countOf({ length }: readonly string[]): string {
  return length > longestChain ? `more than ${longestChain}` : String(length);
}
