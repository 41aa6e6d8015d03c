/**
 * Asks compiled rules about a connection or a request, in the order of the file format.
 *
 * A connection is allowed when one entry holds both its endpoint and its caller. A request on it is then judged by
 * the endpoints that have a protocol: deny rules of all of them first, then allow rules of any of them.
 */
import { unresolvedBinary } from "./binary-matcher.ts";
import type { DecisionCode, Grant, PolicyDecision } from "./decision.ts";
import type { Inspection } from "./endpoint.ts";
import type { ConnectFacts, RequestFacts } from "./request-facts.ts";
import { allowedBy, askedBy, deniedBy, protocolFault } from "./request-match.ts";
import { isFor, type Match, type PolicyRules } from "./rules.ts";

/** A match whose endpoint judges requests. */
type Inspected = Match & {
  readonly endpoint: Match["endpoint"] & { readonly inspection: Inspection };
};

function isInspected(match: Match): match is Inspected {
  return match.endpoint.inspection !== undefined;
}

const nul = "\0";

/** Judges a connection to a host and port. */
export function evaluateConnect(rules: PolicyRules, facts: ConnectFacts): PolicyDecision {
  const found = openEndpoints(rules, facts);
  return Array.isArray(found) ? granted(found) : found;
}

/** Judges one request, its connection included. */
export function evaluateRequest(rules: PolicyRules, facts: RequestFacts): PolicyDecision {
  const found = openEndpoints(rules, facts);
  if (!Array.isArray(found)) return found;
  const decision = granted(found);
  const inspected = found.filter(isInspected);
  if (inspected.length === 0) return decision;
  if (facts.path.includes(nul) || facts.method.includes(nul)) {
    return refusal("malformed", "the request contains NUL");
  }
  const judged = judge(rules, facts, inspected);
  if (decision.effect === "ask" && judged.effect === "allow") return decision;
  if (decision.effect === "ask" && judged.effect === "audit")
    return { ...decision, audited: judged };
  return decision.grant === undefined ? judged : { ...judged, grant: decision.grant };
}

/** The endpoints that are open to this caller, or the refusal. */
function openEndpoints(rules: PolicyRules, facts: ConnectFacts): Match[] | PolicyDecision {
  if (facts.host.includes(nul)) return refusal("malformed", "the host contains NUL");
  if (rules.dialect.unresolvedIdentity === "deny" && isUnresolved(facts)) {
    return refusal("identity-unresolved", "the process that owns the connection is not known");
  }
  if (rules.isEmpty) return refusal("empty-policy", "network connections not allowed by policy");
  const endpoints = rules.endpointsOf(facts.host, facts.port);
  if (endpoints.length === 0) {
    return refusal(
      "endpoint-not-allowed",
      `endpoint ${facts.host}:${facts.port} is not allowed by any policy`,
    );
  }
  const open: Match[] = [];
  let last: Match | undefined;
  let isAdmitted = false;
  for (const match of endpoints) {
    if (match.compiled !== last?.compiled) isAdmitted = rules.admits(match.compiled, facts);
    last = match;
    if (isAdmitted) open.push(match);
  }
  if (open.length > 0) return open;
  const forCaller = endpoints.filter(({ compiled }) => isFor(compiled.entry, facts));
  return forCaller.length > 0
    ? binaryRefusal(facts, forCaller)
    : callerRefusal(facts, endpoints[0]?.compiled.entry.key);
}

function callerRefusal({ caller, host, port }: ConnectFacts, entry?: string): PolicyDecision {
  const who = caller === undefined ? "an agent without an authenticated name" : `agent '${caller}'`;
  return {
    ...refusal("caller-not-allowed", `endpoint ${host}:${port} is not allowed to ${who}`),
    entry,
  };
}

function isUnresolved(facts: ConnectFacts): boolean {
  return facts.binary === undefined || facts.binary === "" || facts.binary === unresolvedBinary;
}

function binaryRefusal(facts: ConnectFacts, endpoints: readonly Match[]): PolicyDecision {
  const keys = [...new Set(endpoints.map(({ compiled }) => compiled.entry.key))];
  const binary =
    facts.binary === undefined || facts.binary === "" ? unresolvedBinary : facts.binary;
  const shown = keys.slice(0, 5).map((key) => `'${key}'`);
  const more = keys.length > shown.length ? ` and ${keys.length - shown.length} more` : "";
  const lineage = facts.ancestors?.join(" -> ") ?? "";
  const hint =
    binary === unresolvedBinary
      ? "The process that owns the connection is not known; only entries without binaries admit it."
      : "SYMLINK HINT: a process is known by the file that runs, links resolved; scripts are known by their interpreter.";
  return {
    ...refusal(
      "binary-not-allowed",
      `binary '${binary}' not allowed in policy ${shown.join(", ")}${more} (ancestors: [${lineage}], cmdline: [${facts.cmdline?.join(", ") ?? ""}]). ${hint}`,
    ),
    entry: keys[0],
  };
}

function granted(open: readonly Match[]): PolicyDecision {
  const [first] = open;
  // Settings of a connection come from the first endpoint that has any; load-time checks keep them from differing.
  const extended = open.find(
    ({ endpoint }) =>
      endpoint.inspection !== undefined ||
      endpoint.allowedIps !== undefined ||
      endpoint.tls !== undefined,
  );
  const grant: Grant = {
    entries: [...new Set(open.map(({ compiled }) => compiled.entry.key))],
    inspect: open.some(({ endpoint }) => endpoint.inspection !== undefined),
    tls: extended?.endpoint.tls ?? "auto",
    allowedIps: extended?.endpoint.allowedIps,
    isExactHost: open.some((match) => match.isExact),
  };
  const asking = open.find(({ endpoint }) => endpoint.asksForHost);
  if (asking !== undefined) {
    const { key } = asking.compiled.entry;
    const reason = `policy '${key}' wants an approval of each connection`;
    const by = { entry: key, rule: asking.endpoint.label };
    return { effect: "ask", code: "approval-of-host", reason, grant, ...by };
  }
  return {
    effect: "allow",
    code: "allowed",
    reason: `allowed by policy '${first?.compiled.entry.key ?? ""}'`,
    grant,
    entry: first?.compiled.entry.key,
    rule: first?.endpoint.label,
  };
}

function judge(
  rules: PolicyRules,
  facts: RequestFacts,
  inspected: readonly Inspected[],
): PolicyDecision {
  const selected = select(inspected, facts.path);
  const what = `${facts.method} ${facts.path}`;
  if (selected === undefined) {
    const reason = `${what} is outside the paths of every endpoint of ${facts.host}:${facts.port}`;
    return refusal("path-outside-endpoints", reason, inspected[0]);
  }
  const { inspection } = selected.endpoint;
  if (!inspection.allowsEncodedSlash && /%2f/i.test(facts.path)) {
    const way = "allow_encoded_slash: true on the endpoint takes it for data";
    return refusal("encoded-slash", `${what} has an encoded slash (${way})`, selected);
  }
  const fault = protocolFault(inspection, facts);
  if (fault !== undefined) return { ...refusal(fault.code, fault.reason, selected), inspection };
  const asked = inspected.filter(({ endpoint }) => endpoint.pathGlob?.matches(facts.path) ?? true);
  const { headMatchesGet } = rules.dialect;
  for (const match of asked) {
    const rule = deniedBy(match.endpoint.inspection, facts, headMatchesGet);
    if (rule !== undefined) {
      const by = rule.label ?? match.endpoint.label;
      return violation(selected, match, {
        code: "deny-rule",
        reason: `${what} ${rule.reason}`,
        by,
      });
    }
  }
  for (const match of asked) {
    const rule = askedBy(match.endpoint.inspection, facts, headMatchesGet);
    if (rule === undefined) continue;
    const { key } = match.compiled.entry;
    if (isBatch(facts)) return { ...refusal("deny-rule", oneByOne, match), rule: rule.label };
    const reason = `${what} needs an approval by policy '${key}' ${rule.label}`;
    const by = { entry: key, rule: rule.label, inspection };
    return { effect: "ask", code: "approval-of-request", reason, ...by };
  }
  for (const match of asked) {
    const rule = allowedBy(match.endpoint.inspection, facts, headMatchesGet);
    if (rule !== undefined) {
      const { key } = match.compiled.entry;
      const reason = `${what} allowed by policy '${key}' ${rule}`;
      return { effect: "allow", code: "allowed", reason, entry: key, rule, inspection };
    }
  }
  const reason = `${what} not permitted by policy`;
  if (inspection.enforcement === "ask") {
    if (isBatch(facts)) return refusal("deny-rule", oneByOne, selected);
    const by = { entry: selected.compiled.entry.key, rule: selected.endpoint.label, inspection };
    return { effect: "ask", code: "approval-of-request", reason, ...by };
  }
  return violation(selected, selected, { code: "not-permitted", reason });
}

/** What stands beside a call that a person decides on would go with it. */
function isBatch({ rpc }: RequestFacts): boolean {
  return (rpc?.calls.length ?? 0) > 1;
}

const oneByOne = "a batch with a call that needs an approval is refused: send the calls one by one";

/** The endpoint whose settings apply: the most specific path, the first among equals. */
function select(inspected: readonly Inspected[], path: string): Inspected | undefined {
  let best: Inspected | undefined;
  for (const match of inspected) {
    const { selector, specificity } = match.endpoint;
    if (selector !== undefined && !selector.matches(path)) continue;
    if (best === undefined || specificity > best.endpoint.specificity) best = match;
  }
  return best;
}

interface Said {
  readonly code: DecisionCode;
  readonly reason: string;
  /** What the refusal is named after; the endpoint when absent. */
  readonly by?: string;
}

/** A refusal that the file may have asked to record only. */
function violation(
  selected: Inspected,
  match: Match,
  { code, reason, by = match.endpoint.label }: Said,
): PolicyDecision {
  return {
    effect: selected.endpoint.inspection.enforcement === "audit" ? "audit" : "deny",
    code,
    reason,
    entry: match.compiled.entry.key,
    rule: by,
    inspection: selected.endpoint.inspection,
  };
}

function refusal(code: DecisionCode, reason: string, match?: Match): PolicyDecision {
  return {
    effect: "deny",
    code,
    reason,
    entry: match?.compiled.entry.key,
    rule: match?.endpoint.label,
  };
}
