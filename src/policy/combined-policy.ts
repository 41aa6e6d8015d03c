/** A policy document and an allow list as one policy. */
import type { Allowlist } from "./allowlist.ts";
import type { PolicyDecision } from "./decision.ts";
import type { InspectedProtocol } from "./rule.ts";
import { evaluateConnect, evaluateRequest } from "./evaluate.ts";
import type { ConnectFacts, RequestFacts } from "./request-facts.ts";
import type { PolicyRules } from "./rules.ts";

/** What is combined; a part that is absent says nothing. */
export interface PolicyParts {
  readonly rules: PolicyRules | undefined;
  readonly allowlist: Allowlist | undefined;
}

/** How requests to a destination are judged. */
export interface InspectionNeeds {
  readonly protocols: ReadonlySet<InspectedProtocol>;
  /** The longest body that any of its endpoints reads. */
  readonly bodyLimitBytes: number;
}

/**
 * Judges by both parts: `deny` of the list first, then the document, and the list's `allow` for hosts that the
 * document does not name at all.
 */
export class CombinedPolicy {
  readonly #parts: PolicyParts;

  constructor(parts: PolicyParts) {
    this.#parts = parts;
  }

  /** Some answer depends on who the caller is. */
  get needsCaller(): boolean {
    return this.#parts.rules?.needsCaller ?? false;
  }

  /** Exact executable paths of the document: as a caller sees its files they may be symbolic links. */
  get binaryPaths(): readonly string[] {
    const entries = this.#parts.rules?.document.entries ?? [];
    const paths = entries.flatMap(({ binaries }) => binaries.filter((path) => !path.includes("*")));
    return [...new Set(paths)];
  }

  /** Some endpoint can be judged only with the body in hand. */
  get needsBodies(): boolean {
    const entries = this.#parts.rules?.document.entries ?? [];
    return entries.some(({ endpoints }) =>
      endpoints.some(
        ({ inspection }) => inspection !== undefined && readsBody(inspection.protocol),
      ),
    );
  }

  /** What has to be known of a request to this destination. */
  inspectionOf(host: string, port: number): InspectionNeeds {
    const protocols = new Set<InspectedProtocol>();
    let bodyLimitBytes = 0;
    for (const { endpoint } of this.#parts.rules?.endpointsOf(host, port) ?? []) {
      const { inspection } = endpoint;
      if (inspection === undefined) continue;
      protocols.add(inspection.protocol);
      if (readsBody(inspection.protocol)) {
        bodyLimitBytes = Math.max(bodyLimitBytes, inspection.bodyLimitBytes);
      }
    }
    return { protocols, bodyLimitBytes };
  }

  evaluateConnect(facts: ConnectFacts): PolicyDecision {
    const { rules, allowlist } = this.#parts;
    return this.#combine(
      facts,
      rules === undefined ? undefined : evaluateConnect(rules, facts),
      () => allowlist?.evaluateConnect(facts),
    );
  }

  evaluateRequest(facts: RequestFacts): PolicyDecision {
    const { rules, allowlist } = this.#parts;
    return this.#combine(
      facts,
      rules === undefined ? undefined : evaluateRequest(rules, facts),
      () => allowlist?.evaluateRequest(facts),
    );
  }

  #combine(
    facts: ConnectFacts,
    byRules: PolicyDecision | undefined,
    byList: () => PolicyDecision | undefined,
  ): PolicyDecision {
    const denied = this.#parts.allowlist?.denies(facts);
    if (denied !== undefined) return denied;
    const isUnnamed =
      byRules === undefined ||
      byRules.code === "endpoint-not-allowed" ||
      byRules.code === "empty-policy";
    const decision = (isUnnamed ? byList() : undefined) ?? byRules;
    if (decision === undefined) {
      return { effect: "deny", code: "empty-policy", reason: "there is no policy" };
    }
    // The host stays open, but some of its requests are on the list of what is refused.
    const mustInspect = this.#parts.allowlist?.refusesRequestsOf(facts) ?? false;
    const { grant } = decision;
    return grant === undefined || grant.inspect || !mustInspect
      ? decision
      : { ...decision, grant: { ...grant, inspect: true } };
  }
}

function readsBody(protocol: InspectedProtocol): boolean {
  return protocol === "graphql" || protocol === "json-rpc" || protocol === "mcp";
}
