/** What decides: a policy compiled to WebAssembly, or an OPA server. Both are asked in the same words. */

/** The documents that a policy defines, one for each direction and phase. */
export const decisionPaths = [
  "authbridge/inbound/request",
  "authbridge/inbound/response",
  "authbridge/outbound/request",
  "authbridge/outbound/response",
] as const;

/** One of {@link decisionPaths}. */
export type DecisionPath = (typeof decisionPaths)[number];

/** Why there is no decision. `timeout` and `error` are the engine's, `overloaded` is our own limit. */
export type FaultKind = "not-ready" | "timeout" | "error" | "overloaded";

/** What an engine says: the value of the document, that the policy does not define it, or why nothing is known. */
export type Evaluation =
  | { readonly kind: "value"; readonly value: unknown; readonly decisionId?: string }
  | { readonly kind: "undefined"; readonly decisionId?: string }
  | { readonly kind: "fault"; readonly fault: FaultKind; readonly message: string };

/** Evaluates documents of one policy. Nothing here rejects: what goes wrong is a fault, and a fault is a refusal. */
export interface DecisionEngine {
  /** `input` is the text of a JSON object. */
  evaluate(path: DecisionPath, input: string): Promise<Evaluation>;
  /** True, or why there is no policy yet. */
  ready(): true | string;
}

/** What engines tell about their policy, for the log and the counters. */
export interface PolicyObserver {
  onLoaded(facts: PolicyFacts): void;
  /** The newest policy is not used, and why; called once for each new reason. */
  onProblem(problem: string): void;
  /** An evaluation took too long and was ended. */
  onKilled(path: string): void;
}

/** What is known of a loaded policy. */
export interface PolicyFacts {
  readonly source: string;
  readonly revision: string;
  readonly entrypoints: readonly string[];
}

export function fault(kind: FaultKind, message: string): Evaluation {
  return { kind: "fault", fault: kind, message };
}

/** The field that shows who asks; empty without a token. */
export type Credentials = (signal: AbortSignal) => Promise<Readonly<Record<string, string>>>;
