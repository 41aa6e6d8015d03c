/** What an operator may decide of an open question, and for how long it holds. */
import { messageOf } from "../errors.ts";
import type { Desk } from "./desk.ts";
import { type DecisionScope, decisionScopes, type Verdict } from "./told.ts";

/** A decision as it comes from an operator. */
export interface Order {
  readonly id: string;
  /** `allow` or `deny`. */
  readonly decision: string;
  /** One of {@link decisionScopes}; once when empty. */
  readonly scope: string;
  readonly durationMs: number | undefined;
  readonly reason: string;
  readonly by: string;
}

/** Bounds of decisions. */
export interface DecidingRules {
  readonly expiresMs: number;
  readonly maxDurationMs: number;
  readonly isTwoPerson: boolean;
}

/** What came of an order. */
export type Decided =
  | {
      readonly kind: "decided";
      readonly verdict: Verdict;
      readonly suggestion?: string | undefined;
    }
  | { readonly kind: "voted"; readonly id: string }
  | { readonly kind: "unknown" | "over" | "wrong" | "away"; readonly message: string };

const maxReason = 200;

/** Follows the order, or says what is wrong with it. What the store of `state` does not know of is not decided. */
export async function decide(desk: Desk, rules: DecidingRules, order: Order): Promise<Decided> {
  return follow(desk, rules, order).catch((error: unknown) => ({
    kind: "away",
    message: `it cannot be decided now: ${messageOf(error)}`,
  }));
}

async function follow(desk: Desk, rules: DecidingRules, order: Order): Promise<Decided> {
  const { id, by } = order;
  const ask = desk.get(id);
  if (ask === undefined) {
    return desk.standing(id) === undefined
      ? { kind: "unknown", message: "there is no such question" }
      : { kind: "over", message: "it is decided already, or its time is over" };
  }
  const at = Date.now();
  if (ask.expiresAt <= at) return { kind: "over", message: "its time is over" };
  const { decision } = order;
  if (decision !== "allow" && decision !== "deny") return wrong("decision must be allow or deny");
  const given = order.scope === "" ? "once" : order.scope;
  const scope = decisionScopes.find((one) => one === given);
  if (scope === undefined) return wrong(`scope must be one of ${decisionScopes.join(", ")}`);
  const { durationMs } = order;
  if ((scope === "duration") !== (durationMs !== undefined))
    return wrong("scope duration needs a duration such as 15m, and no other scope takes one");
  if ((durationMs ?? 0) > rules.maxDurationMs)
    return wrong("the duration is longer than approval.max_duration");
  if (scope === "session" && ask.session === undefined)
    return wrong("the request belongs to no session that is known");
  if (decision === "allow" && rules.isTwoPerson) {
    // Two that were the first at once, in two replicas, have both voted: whoever of them says it again decides.
    if (ask.votes.every((one) => one === by)) {
      if (ask.votes.length > 0) return wrong("another operator has to allow it as well");
      await desk.vote(id, by);
      return { kind: "voted", id };
    }
  }
  const verdict: Verdict = {
    id,
    digest: ask.digest,
    decision,
    by: [...new Set([...ask.votes, by])],
    scope,
    until: at + lastsMs(scope, durationMs, rules),
    session: ask.session,
    reason:
      order.reason
        .replaceAll(/[\p{Cc}\u2028\u2029]+/gu, " ")
        .trim()
        .slice(0, maxReason) || undefined,
    at,
  };
  const standing = await desk.decide(verdict);
  if (!isSame(standing, verdict))
    return { kind: "over", message: "somebody else has decided already" };
  return {
    kind: "decided",
    verdict: standing,
    ...(scope === "policy" ? { suggestion: ask.suggestion } : {}),
  };
}

/** Whether it is what was ordered: said again by whoever was not told that it counts. */
function isSame(one: Verdict, other: Verdict): boolean {
  const { decision, scope } = other;
  return one.decision === decision && one.scope === scope && one.by.join() === other.by.join();
}

function lastsMs(
  scope: DecisionScope,
  durationMs: number | undefined,
  { expiresMs, maxDurationMs }: DecidingRules,
): number {
  if (scope === "session") return maxDurationMs;
  return durationMs ?? expiresMs;
}

function wrong(message: string): Decided {
  return { kind: "wrong", message };
}
