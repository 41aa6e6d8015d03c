/** What a plugin needs to ask a person: the one call for every plugin with an action `ask`. */
import type { RequestContext } from "./context.ts";
import { type Decision, deny, type Reply } from "./decision.ts";

/** What is asked about a message, in words for whoever decides. */
export interface ApprovalQuestion {
  /** The rule that asks; a decision on one rule is none on another. */
  readonly rule?: string | undefined;
  /** Why it is asked. */
  readonly reason: string;
  /** The addition to a policy that would make the question superfluous. */
  readonly suggestion?: string | undefined;
  /** Takes out of a text of the message what whoever decides must not see; the decision is for the message as it is. */
  readonly conceal?: (text: string, kind: "target" | "json") => string;
}

/** The way of one plugin instance to those who can decide. */
export interface ApprovalGate {
  /**
   * What becomes of the message: `allow` once somebody has approved exactly this one, else a refusal. It waits no longer
   * than `approval.hold`, and for no longer than the client does.
   */
  ask(context: RequestContext, question: ApprovalQuestion): Decision | Promise<Decision>;
  /** The rules are others from now on: what waits for a decision on the old ones is refused. */
  rebase(basis: string): void;
}

/** Gates of one generation. */
export interface Approvals {
  /** `basis` is everything that the verdict of the instance depends on: a decision holds only while that is the same. */
  gate(basis: string): ApprovalGate;
}

/** What a pipeline asks before its steps. */
export interface ApprovalArrivals {
  /** Takes the id of an earlier question out of the message; a response where the message only asks how it stands. */
  arrive(context: RequestContext): Reply | undefined;
}

/** Asks, or says what a hypothetical message would come to. Without a gate nobody can answer. */
export function askPerson(
  gate: ApprovalGate | undefined,
  context: RequestContext,
  question: ApprovalQuestion,
): Decision | Promise<Decision> {
  if (gate !== undefined) return gate.ask(context, question);
  return context.isHypothetical ? wouldAsk(question) : nobodyToAsk(question);
}

/** The verdict of a rehearsal. */
export function wouldAsk({ reason, rule }: ApprovalQuestion): Decision {
  const message = `a person would be asked: ${reason}`;
  return deny("would_ask", { code: "policy.approval-pending", message, rule });
}

/** There is no way by which a decision could come. */
export function nobodyToAsk({ reason, rule }: ApprovalQuestion): Decision {
  const message = `${reason}; this needs an approval, and nobody can give it: set session.api_secret_file or approval.operators, or start run from a terminal`;
  return deny("nobody_to_ask", { code: "policy.approval-denied", message, rule });
}
