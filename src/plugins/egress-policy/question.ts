/** What a person is asked about a connection or a request that the policy leaves to them. */
import type { ApprovalQuestion } from "../../pipeline/plugin.ts";
import type { Denial } from "../../policy/aggregate.ts";
import type { PolicyDecision } from "../../policy/decision.ts";
import { suggestionFor } from "../../policy/suggestion-text.ts";

/** The question, with the addition to the policy that would have made it superfluous. */
export function questionOf(
  { code, reason, entry, rule }: PolicyDecision,
  told: Denial,
  keys: readonly string[],
): ApprovalQuestion {
  const asked =
    code === "approval-of-host" ? ("endpoint-not-allowed" as const) : ("not-permitted" as const);
  return {
    rule: entry === undefined ? rule : `${entry}${rule === undefined ? "" : ` ${rule}`}`,
    reason,
    suggestion: suggestionFor({ ...told, code: asked }, keys),
  };
}
