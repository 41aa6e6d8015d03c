/** A policy document and an allow list as one policy. */
import type { Allowlist } from "./allowlist.ts";
import type { PolicyDecision } from "./decision.ts";
import type { InspectedProtocol } from "./rule.ts";
import { evaluateConnect, evaluateRequest } from "./evaluate.ts";
import { PlaceMemo } from "./place-memo.ts";
import type { ConnectFacts, RequestFacts } from "./request-facts.ts";
import type { PolicyRules } from "./rules.ts";

/** What is combined; a part that is absent says nothing. */
export interface PolicyParts {
  readonly rules: PolicyRules | undefined;
  readonly allowlist: Allowlist | undefined;
}

/** How requests to a destination are judged. */
export interface InspectionNeeds {
  /** False where the host is open whole: its requests go as they came. */
  readonly judgesRequests: boolean;
  readonly protocols: ReadonlySet<InspectedProtocol>;
  /** The body of a request has to be read to judge it. */
  readonly readsBodies: boolean;
  /** The longest body that any of its endpoints reads. */
  readonly bodyLimitBytes: number;
  /** A person may have to decide: the whole request has to be known. */
  readonly asks: boolean;
}

/** How messages on one path of a destination are judged. */
export interface MessageNeeds {
  /** Every message is a GraphQL operation, or belongs to the protocol that carries them. */
  readonly areOperations: boolean;
  /** The longest GraphQL message that any of the endpoints reads. */
  readonly bodyLimitBytes: number;
}

/**
 * Judges by both parts: `deny` of the list first, then the document, and the list's `allow` for hosts that the
 * document does not name at all.
 */
export class CombinedPolicy {
  readonly #parts: PolicyParts;
  /** Exact executable paths of the document: as a caller sees its files they may be symbolic links. */
  readonly binaryPaths: readonly string[];
  readonly #needs = new PlaceMemo<InspectionNeeds>((host, port) => this.#needsOf(host, port));

  constructor(parts: PolicyParts) {
    this.#parts = parts;
    const entries = parts.rules?.document.entries ?? [];
    const paths = entries.flatMap(({ binaries }) => binaries.filter((path) => !path.includes("*")));
    this.binaryPaths = [...new Set(paths)];
  }

  /** Some decision depends on who the caller is. */
  get needsCaller(): boolean {
    return this.#parts.rules?.needsCaller ?? false;
  }

  /** Keys of the document's entries. */
  get keys(): readonly string[] {
    return this.#parts.rules?.document.entries.map(({ key }) => key) ?? [];
  }

  /** What has to be known of a request to this destination. */
  inspectionOf(host: string, port: number): InspectionNeeds {
    return this.#needs.of(host, port);
  }

  #needsOf(host: string, port: number): InspectionNeeds {
    const protocols = new Set<InspectedProtocol>();
    let readsBodies = false;
    let bodyLimitBytes = 0;
    let asks = false;
    for (const { endpoint } of this.#parts.rules?.endpointsOf(host, port) ?? []) {
      const { inspection, asksForHost } = endpoint;
      asks ||=
        asksForHost || inspection?.enforcement === "ask" || (inspection?.ask.length ?? 0) > 0;
      if (inspection === undefined) continue;
      protocols.add(inspection.protocol);
      if (readsBody(inspection.protocol)) {
        readsBodies = true;
        bodyLimitBytes = Math.max(bodyLimitBytes, inspection.bodyLimitBytes);
      }
    }
    const isListed = this.#parts.allowlist?.judgesRequestsOf(host, port) ?? false;
    const judgesRequests = protocols.size > 0 || isListed;
    return { judgesRequests, protocols, readsBodies, bodyLimitBytes, asks };
  }

  /**
   * What has to be known of a WebSocket's messages, by all readings of its path; undefined where every message may
   * pass.
   */
  messagesOf(host: string, port: number, paths: readonly string[]): MessageNeeds | undefined {
    let needs: MessageNeeds | undefined;
    for (const { endpoint } of this.#parts.rules?.endpointsOf(host, port) ?? []) {
      const { inspection, selector, pathGlob } = endpoint;
      const isOnPath =
        selector === undefined ||
        paths.some((path) => selector.matches(path) || pathGlob?.matches(path) === true);
      if (inspection?.judgesMessages !== true || !isOnPath) continue;
      needs = {
        areOperations: inspection.judgesOperations || needs?.areOperations === true,
        bodyLimitBytes: Math.max(inspection.bodyLimitBytes, needs?.bodyLimitBytes ?? 0),
      };
    }
    return needs;
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
