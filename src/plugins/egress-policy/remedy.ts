/** What a refusal says to programs: its code, and what would help. */
import type { Denial } from "../../policy/aggregate.ts";
import type { DecisionCode, PolicyDecision } from "../../policy/decision.ts";
import { commandsFor, missingRule } from "../../policy/missing-rule.ts";
import type { ConnectFacts, RequestFacts } from "../../policy/request-facts.ts";

/** A decision that does not let a message pass by itself, as it is recorded. */
export function toldOf(
  { host, port, binary }: ConnectFacts,
  { code, entry, rule, inspection }: PolicyDecision,
  { method, path }: Partial<RequestFacts> = {},
): Denial {
  return { host, port, binary, code, entry, rule, protocol: inspection?.protocol, method, path };
}

/** What the policy lacks and who adds it, in words for programs; nothing where no addition would help. */
export function remedyOf(denial: Denial): Readonly<Record<string, unknown>> {
  const missing = missingRule(denial);
  return missing === undefined ? {} : { missing, add: commandsFor(denial) };
}

const malformedCodes: ReadonlySet<DecisionCode> = new Set([
  "malformed",
  "encoded-slash",
  "ambiguous-path",
]);

/** The code of the refusal. */
export function denialCode({ code }: PolicyDecision): string {
  if (malformedCodes.has(code)) return "request.malformed";
  return code === "body-too-large" ? "request.body-too-large" : "policy.forbidden";
}
