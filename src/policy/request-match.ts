/** Whether the rules of one endpoint select a request: pure matching, no order and no enforcement. */
import type { DecisionCode } from "./decision.ts";
import type { Inspection } from "./endpoint.ts";
import type { GraphqlOperation, RequestFacts, RpcCall, RpcFacts } from "./request-facts.ts";
import {
  type GraphqlRule,
  type HttpRule,
  type RpcRule,
  type Rule,
  type ValueMatcher,
  websocketText,
} from "./rule.ts";

/** Why a request cannot be judged by an endpoint's protocol; such a request is refused even under audit. */
export interface ProtocolFault {
  readonly code: DecisionCode;
  readonly reason: string;
}

/** The reason why an allow rule does not matter, with the rule if there is one. */
export interface Denying {
  readonly label?: string;
  readonly reason: string;
}

const strictToolName = /^[\w.-]{1,128}$/;

/** Checks that the request is what the endpoint's protocol can judge. */
export function protocolFault(
  inspection: Inspection,
  facts: RequestFacts,
): ProtocolFault | undefined {
  const { protocol } = inspection;
  if (protocol === "rest") return undefined;
  const { bodyLimitBytes } = inspection;
  if (facts.bodyBytes !== undefined && facts.bodyBytes > bodyLimitBytes) {
    const reason = `the body is longer than ${bodyLimitBytes} bytes and cannot be judged`;
    return { code: "body-too-large", reason };
  }
  if (protocol === "json-rpc" || protocol === "mcp") return rpcFault(inspection, facts);
  const isOperation =
    protocol === "graphql" ||
    facts.graphql !== undefined ||
    (inspection.judgesOperations && facts.method === websocketText);
  return isOperation ? graphqlFault(facts) : undefined;
}

function graphqlFault({ graphql }: RequestFacts): ProtocolFault | undefined {
  if (graphql === undefined) {
    return { code: "uninspected", reason: "GraphQL request rejected: it was not read" };
  }
  if (graphql.error !== undefined) {
    return { code: "protocol-error", reason: `GraphQL request rejected: ${graphql.error}` };
  }
  if (graphql.operations.length === 0) {
    return { code: "protocol-error", reason: "GraphQL request rejected: it has no operation" };
  }
  return undefined;
}

function rpcFault(inspection: Inspection, { rpc }: RequestFacts): ProtocolFault | undefined {
  if (rpc === undefined) {
    return { code: "uninspected", reason: "JSON-RPC request rejected: it was not read" };
  }
  if (rpc.error !== undefined) {
    return { code: "protocol-error", reason: `JSON-RPC request rejected: ${rpc.error}` };
  }
  if (inspection.protocol === "json-rpc") {
    return rpc.hasResponse === true
      ? {
          code: "protocol-error",
          reason: "JSON-RPC response frames are not permitted from client to server",
        }
      : undefined;
  }
  const hasBadName = rpc.calls.some(
    ({ method, tool }) =>
      method === "tools/call" && tool !== undefined && !strictToolName.test(tool),
  );
  return inspection.strictToolNames && hasBadName
    ? { code: "protocol-error", reason: "MCP request rejected: the tool name is not a strict one" }
    : undefined;
}

/** The deny rule that selects the request, or the endpoint's own authority over its operations. */
export function deniedBy(
  inspection: Inspection,
  facts: RequestFacts,
  headMatchesGet: boolean,
): Denying | undefined {
  for (const rule of inspection.deny) {
    if (denySelects(rule, inspection, facts, headMatchesGet)) {
      return { label: rule.label, reason: "blocked by deny rule" };
    }
  }
  return operationsDenied(inspection, facts);
}

/** The rule by which a person decides on the request. */
export function askedBy(
  inspection: Inspection,
  facts: RequestFacts,
  headMatchesGet: boolean,
): Rule | undefined {
  return inspection.ask.find((rule) => denySelects(rule, inspection, facts, headMatchesGet));
}

function denySelects(
  rule: Rule,
  inspection: Inspection,
  facts: RequestFacts,
  headMatchesGet: boolean,
): boolean {
  if (rule.kind === "http") {
    return (
      methodSelects(rule.method, facts.method, headMatchesGet) &&
      rule.path.matches(facts.path) &&
      denyQuerySelects(rule, facts)
    );
  }
  if (rule.kind === "graphql") {
    const operations = facts.graphql?.operations ?? [];
    return operations.some((one) => operationSelects(rule, effective(one, inspection), "deny"));
  }
  if (facts.method !== "POST") return false;
  const { calls, error } = facts.rpc ?? unread;
  // What cannot be read might be such a call: another endpoint, which does not read it, may let it through.
  return error !== undefined || calls.some((call) => callSelects(rule, call, "deny"));
}

const unread: RpcFacts = { calls: [], error: "the body was not read" };

/**
 * An endpoint that judges GraphQL operations has the last word on them: a broader rule on the same host does not let
 * through what its own rules do not allow.
 */
function operationsDenied(inspection: Inspection, facts: RequestFacts): Denying | undefined {
  const { graphql } = facts;
  const { protocol } = inspection;
  const isAuthority = protocol === "graphql" || (protocol === "websocket" && graphql !== undefined);
  if (!isAuthority) return undefined;
  if (graphql?.operations.some((operation) => isUnregistered(operation, inspection)) === true) {
    return { reason: "names a GraphQL persisted query that is not registered" };
  }
  return operationsAllowed(inspection, facts) === undefined
    ? { reason: "has a GraphQL operation not permitted by policy" }
    : undefined;
}

/** The label of the allow rule that selects the request, or undefined. */
export function allowedBy(
  inspection: Inspection,
  facts: RequestFacts,
  headMatchesGet: boolean,
): string | undefined {
  const { protocol } = inspection;
  if (protocol === "json-rpc" || protocol === "mcp") {
    return facts.rpc === undefined ? undefined : callsAllowed(inspection, facts, facts.rpc);
  }
  const isOperation =
    protocol === "graphql" || (protocol === "websocket" && facts.graphql !== undefined);
  return isOperation
    ? operationsAllowed(inspection, facts)
    : requestAllowed(inspection, facts, headMatchesGet);
}

function requestAllowed(
  inspection: Inspection,
  facts: RequestFacts,
  headMatchesGet: boolean,
): string | undefined {
  return inspection.allow.find(
    (rule) =>
      rule.kind === "http" &&
      methodSelects(rule.method, facts.method, headMatchesGet) &&
      rule.path.matches(facts.path) &&
      allowQuerySelects(rule, facts),
  )?.label;
}

function methodSelects(expected: string, actual: string, headMatchesGet: boolean): boolean {
  if (expected === "*" || expected === actual) return true;
  const method = actual.toUpperCase();
  return method === expected || (headMatchesGet && method === "HEAD" && expected === "GET");
}

function matchesAny(matcher: ValueMatcher, value: string): boolean {
  return matcher.some((glob) => glob.matches(value));
}

/** Every key that the rule names is there, and every value of it matches. */
function allowQuerySelects(rule: HttpRule, { query }: RequestFacts): boolean {
  return rule.query.every(([key, matcher]) => {
    const values = query === "unreadable" ? undefined : query.get(key);
    return values?.every((value) => matchesAny(matcher, value)) ?? false;
  });
}

/** Every key that the rule names is there with at least one value that matches; what cannot be read might be. */
function denyQuerySelects(rule: HttpRule, { query }: RequestFacts): boolean {
  if (query === "unreadable") return true;
  return rule.query.every(
    ([key, matcher]) =>
      // NUL in a value would make every pattern miss it.
      query.get(key)?.some((value) => value.includes("\0") || matchesAny(matcher, value)) ?? false,
  );
}

function isUnregistered(operation: GraphqlOperation, inspection: Inspection): boolean {
  return operation.operationType === "" && effective(operation, inspection) === undefined;
}

/** The operation that will run: the registered one where the request names it without sending it. */
function effective(
  operation: GraphqlOperation,
  inspection: Inspection,
): GraphqlOperation | undefined {
  if (operation.operationType !== "") return operation;
  return operation.persisted === undefined
    ? undefined
    : inspection.registered.get(operation.persisted);
}

/** The label of the rule that allows the first operation, when all operations are allowed. */
function operationsAllowed(inspection: Inspection, { graphql }: RequestFacts): string | undefined {
  if (graphql === undefined || graphql.error !== undefined) return undefined;
  let label: string | undefined;
  for (const operation of graphql.operations) {
    const running = effective(operation, inspection);
    const rule = inspection.allow.find(
      (candidate) => candidate.kind === "graphql" && operationSelects(candidate, running, "allow"),
    );
    if (rule === undefined) return undefined;
    label ??= rule.label;
  }
  return label;
}

function operationSelects(
  rule: GraphqlRule,
  operation: GraphqlOperation | undefined,
  side: "allow" | "deny",
): boolean {
  if (operation === undefined) return false;
  const type = operation.operationType.toLowerCase();
  if (rule.operationType !== "*" && rule.operationType !== type) return false;
  const name = rule.operationName;
  if (name !== undefined && !name.matches(operation.operationName ?? "")) return false;
  if (rule.fields.length === 0) return true;
  const { fields } = operation;
  return side === "allow"
    ? fields.length > 0 && fields.every((field) => matchesAny(rule.fields, field))
    : fields.some((field) => matchesAny(rule.fields, field));
}

/** The label of the rule that allows the first call, when all calls are allowed. */
function callsAllowed(
  inspection: Inspection,
  { method }: RequestFacts,
  rpc: RpcFacts,
): string | undefined {
  const isMcp = inspection.protocol === "mcp";
  if (isMcp && method === "GET" && rpc.receivesStream === true && rpc.calls.length === 0) {
    return "receive stream";
  }
  if (method !== "POST") return undefined;
  let label: string | undefined;
  for (const call of rpc.calls) {
    const allowed = callAllowed(inspection, call);
    if (allowed === undefined) return undefined;
    label ??= allowed;
  }
  return label ?? (isMcp && rpc.hasResponse === true ? "response frame" : undefined);
}

function callAllowed(inspection: Inspection, call: RpcCall): string | undefined {
  const rules = inspection.allow.filter((rule): rule is RpcRule => rule.kind === "rpc");
  const rule = rules.find((candidate) => callSelects(candidate, call, "allow"));
  if (rule !== undefined) return rule.label;
  if (!inspection.allowsAllMethods) return undefined;
  // Once a rule names tools, the option no longer applies to calls of tools.
  const isNarrowed = call.method === "tools/call" && rules.some(({ tool }) => tool !== undefined);
  return isNarrowed ? undefined : "mcp.allow_all_known_mcp_methods";
}

function callSelects(rule: RpcRule, call: RpcCall, side: "allow" | "deny"): boolean {
  if (call.method === "") return false;
  if (typeof rule.method === "string") {
    if (rule.method !== call.method) return false;
  } else if (rule.method !== undefined && !rule.method.matches(call.method)) return false;
  if (rule.tool === undefined) return true;
  if (call.tool === undefined || !matchesAny(rule.tool, call.tool)) return false;
  if (rule.selectsArguments === undefined) return true;
  // Arguments that servers read in two ways are not known to match, and not known to miss.
  return call.args === undefined ? side === "deny" : rule.selectsArguments(call.args);
}
