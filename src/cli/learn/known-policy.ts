/** What a policy file lets through already, and why it refuses the rest. */
import { decideSpelling } from "../../policy/spelling.ts";
import { readPath } from "../../http/path.ts";
import type { CombinedPolicy } from "../../policy/combined-policy.ts";
import type { PolicyDecision } from "../../policy/decision.ts";
import type { QueryFacts, RpcFacts } from "../../policy/request-facts.ts";
import { egressPolicyConfig } from "../../plugins/egress-policy/config.ts";
import { makePolicy } from "../../plugins/egress-policy/source.ts";
import type { Observation, ObservedRequest } from "./observed-traffic.ts";

/** The policy of a file's text; throws with every problem and its place. */
export function policyOf(text: string, file: string): CombinedPolicy {
  return makePolicy(egressPolicyConfig.parse({ policy_file: file }), text).policy;
}

/** Events have no queries: a rule that asks for one may have been what let the request through, and counts. */
const anyQuery = { get: () => [] } as unknown as QueryFacts;

/** What the policy says of a connection or request that was seen. */
export function decisionOf(policy: CombinedPolicy, observation: Observation): PolicyDecision {
  const { host, port, executable: binary, request } = observation;
  const facts = { host, port, ...(binary === undefined ? {} : { binary }) };
  if (request !== undefined) {
    const { method, path, calls } = request;
    const rpc = rpcOf(request);
    const bodyBytes = calls === undefined ? undefined : observation.sentBytes;
    return decideSpelling(readPath(path, { slashIsData: true }), (reading) =>
      policy.evaluateRequest({
        ...facts,
        method,
        path: reading,
        query: anyQuery,
        ...(rpc === undefined ? {} : { rpc }),
        ...(bodyBytes === undefined ? {} : { bodyBytes }),
      }),
    );
  }
  const connect = policy.evaluateConnect(facts);
  if (connect.grant?.inspect !== true) return connect;
  const reason = "its requests were not seen, and the policy judges them";
  return { ...connect, effect: "deny", code: "uninspected", reason };
}

function rpcOf({ method, calls }: ObservedRequest): RpcFacts | undefined {
  if (calls !== undefined) return { calls };
  // What the transport of MCP does by methods of HTTP has no calls.
  return method === "POST" ? undefined : { calls: [], receivesStream: method === "GET" };
}
