/** One decision about a path that servers may read in several ways: it has to be right for each of them. */
import type { PolicyDecision } from "./decision.ts";

/** What servers may read in one spelling. */
export interface Spelling {
  /** As it is spelt first. */
  readonly readings: readonly [string, ...string[]];
  /** What only a server would read that breaks the rules of URIs; no deny rule may be lost to it. */
  readonly remote?: readonly string[];
  /** Why no number of readings is all of them. */
  readonly ambiguous?: string | undefined;
}

/** The advice for a server that does not normalise paths. */
const key =
  "allow_ambiguous_path: true on an endpoint of network_policies judges it as it is spelt";

/** Judges every reading: they must agree on whether the request may pass. */
export function decideSpelling(
  { readings, remote = [], ambiguous }: Spelling,
  decide: (path: string) => PolicyDecision,
): PolicyDecision {
  const [literal] = readings;
  const own = decide(literal);
  if (readings.length === 1 && remote.length === 0 && ambiguous === undefined) return own;
  const others = readings.slice(1);
  const read = others.map((path) => ({ path, decision: decide(path) }));
  const decisions = [own, ...read.map(({ decision }) => decision)];
  if (decisions.every(({ inspection }) => inspection?.allowsAmbiguousPath === true)) return own;
  if (ambiguous !== undefined) {
    const denied = decisions.find(({ effect }) => effect === "deny") ?? own;
    return refusal(denied, `the path can be read in more than one way: ${ambiguous} (${key})`);
  }
  const isDenied = own.effect === "deny";
  const other =
    read.find(({ decision }) => (decision.effect === "deny") !== isDenied) ??
    remote
      .map((path) => ({ path, decision: decide(path) }))
      .find(
        ({ decision: { effect, code } }) =>
          !isDenied &&
          ((effect === "deny" && code === "deny-rule") ||
            (effect === "ask" && own.effect !== "ask")),
      );
  if (other === undefined) {
    const asking = decisions.find(({ effect }) => effect === "ask");
    return asking ?? decisions.find(({ effect }) => effect !== "allow") ?? own;
  }
  const reason = `${literal} is ${other.path} to some servers, and the rules tell them apart (${key})`;
  return refusal(isDenied ? own : other.decision, reason);
}

function refusal({ entry, rule }: PolicyDecision, reason: string): PolicyDecision {
  return { effect: "deny", code: "ambiguous-path", reason, entry, rule };
}
