/** Reads what an endpoint says about requests: protocol, enforcement, presets, rules and limits. */
import type { EndpointContext, EndpointNode } from "./endpoint-context.ts";
import type { Inspection, RegisteredOperation } from "../endpoint.ts";
import type { GlobTable } from "../../pattern/glob.ts";
import type { Node } from "./node.ts";
import type { EndpointSource } from "./schema.ts";
import {
  type GraphqlRule,
  type HttpRule,
  type InspectedProtocol,
  inspectedProtocols,
  operationTypes,
  type Rule,
  websocketText,
} from "../rule.ts";
import { readRule, type RuleContext } from "./rule-reader.ts";

const defaultBodyLimitBytes = 65_536;

/** Methods, or operation types, that each preset stands for. */
const presets: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  rest: {
    "read-only": ["GET", "HEAD", "OPTIONS"],
    "read-write": ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"],
    full: ["*"],
  },
  websocket: { "read-only": ["GET"], "read-write": ["GET", websocketText], full: ["*"] },
  graphql: { "read-only": ["query"], "read-write": ["query", "mutation"], full: ["*"] },
};

/** Reads the inspection of an endpoint whose protocol is written and not tcp. */
export function readInspection(
  node: EndpointNode,
  label: string,
  context: EndpointContext,
): Inspection | undefined {
  const protocol = inspectedProtocols.find((known) => known === node.get("protocol"));
  if (protocol === undefined) return undefined;
  checkOtherProtocols(node, protocol);
  const mcp = node.at("mcp");
  const options = {
    protocol,
    allowsAllMethods: mcp?.get("allow_all_known_mcp_methods") ?? false,
    strictToolNames: mcp?.get("strict_tool_names") ?? true,
  };
  const rules: RuleContext = { ...options, side: "allow", globs: context.globs };
  const allow = readAllow(node, label, rules);
  const deny = readDeny(node, label, { ...rules, side: "deny" });
  const ask = readAsked(node, label, { ...rules, side: "deny" });
  const enforcement = readEnforcement(node, context);
  refuseAskedMessages(node, protocol, enforcement === "ask" || ask.length > 0);
  const judgesOperations =
    protocol === "websocket" && [...allow, ...deny].some((rule) => rule.kind === "graphql");
  if (protocol === "websocket" && !judgesOperations) warnOfOperations(node);
  return {
    ...options,
    enforcement,
    allow,
    deny,
    ask,
    bodyLimitBytes:
      (mcp ?? node.at("json_rpc"))?.get("max_body_bytes") ??
      node.get("graphql_max_body_bytes") ??
      defaultBodyLimitBytes,
    allowsEncodedSlash: node.get("allow_encoded_slash") ?? false,
    allowsAmbiguousPath: node.get("allow_ambiguous_path") ?? false,
    registered: readRegistered(node),
    judgesOperations,
    judgesMessages:
      protocol === "websocket" && readsMessages(node, { allow, deny, judgesOperations }),
  };
}

const operationKeys = [
  "persisted_queries",
  "graphql_persisted_queries",
  "graphql_max_body_bytes",
] as const;

/** Options of one protocol on another would be ignored, so they are refused. */
function checkOtherProtocols(node: EndpointNode, protocol: InspectedProtocol): void {
  const owners = [
    ["json_rpc", "json-rpc"],
    ["mcp", "mcp"],
    ...operationKeys.map((key) => [key, "graphql", "websocket"] as const),
  ] as const;
  for (const [key, ...protocols] of owners) {
    if (!protocols.some((owner) => owner === protocol)) {
      node.at(key)?.error(`'${key}' has no meaning with protocol ${protocol}`);
    }
  }
}

/** Messages that are no operations are judged as what they are. */
function warnOfOperations(node: EndpointNode): void {
  for (const key of operationKeys)
    node.at(key)?.warning(`'${key}' has no effect without a rule that has operation_type`);
}

function readEnforcement(
  node: EndpointNode,
  { dialect }: EndpointContext,
): Inspection["enforcement"] {
  if (node.at("enforcement") !== undefined) return node.get("enforcement") ?? "enforce";
  if (dialect.enforcementDefault === "audit") {
    node.warning("no enforcement is written: violations are recorded and let through (audit)");
  }
  return dialect.enforcementDefault;
}

function readAllow(node: EndpointNode, label: string, context: RuleContext): readonly Rule[] {
  const access = node.at("access");
  const rules = node.at("rules");
  if (access !== undefined && rules !== undefined)
    access.error("rules and access exclude each other");
  if (access !== undefined) return readPreset(access, label, context);
  if (rules !== undefined) return readAllowList(rules, label, context);
  if (!context.allowsAllMethods)
    node.error("protocol requires rules or access to define allowed traffic");
  return [];
}

function readPreset(node: Node<string>, label: string, context: RuleContext): readonly Rule[] {
  const table = presets[context.protocol];
  const written = node.value;
  if (written === undefined) return [];
  if (table === undefined) return node.error(`protocol ${context.protocol} has no presets`) ?? [];
  const words = Object.hasOwn(table, written) ? table[written] : undefined;
  if (words === undefined) {
    node.warning(`unsupported L7 access preset '${written.slice(0, 64)}': it allows nothing`);
    return [];
  }
  const preset = `${label}.access ${written}`;
  return words.map((word) =>
    context.protocol === "graphql"
      ? presetOperation(word, preset)
      : presetMethod(word, preset, context.globs),
  );
}

function presetMethod(method: string, label: string, globs: GlobTable): HttpRule {
  return { kind: "http", label, method, path: globs.compile("**", ["/"]), query: [] };
}

function presetOperation(word: string, label: string): GraphqlRule {
  const operationType = operationTypes.find((type) => type === word) ?? "query";
  return { kind: "graphql", label, operationType, fields: [] };
}

function readAllowList(
  node: Node<NonNullable<EndpointSource["rules"]>>,
  label: string,
  context: RuleContext,
): readonly Rule[] {
  const items = node.items();
  let isInert = items.length > 0;
  const rules = items.flatMap((item, index) => {
    const allow = item.at("allow");
    if (item.at("ask") !== undefined) {
      isInert = false;
      if (allow !== undefined) item.error("a rule either allows or asks: write two");
      return [];
    }
    if (allow === undefined) {
      item.warning("a rule without an allow clause allows nothing");
      return [];
    }
    // In an MCP endpoint that allows all methods an empty clause says what is so already.
    const isEmpty = allow.entries().length === 0;
    if (!isEmpty || context.allowsAllMethods) isInert = false;
    return isEmpty ? [] : (readRule(allow, context, `${label}.rules[${index}]`) ?? []);
  });
  if (isInert)
    node.error("rules would deny all traffic: none has an allow clause that selects something");
  return rules;
}

function readDeny(endpoint: EndpointNode, label: string, context: RuleContext): readonly Rule[] {
  const node = endpoint.at("deny_rules");
  if (node === undefined) return [];
  const hasBase = endpoint.at("rules") !== undefined || endpoint.at("access") !== undefined;
  if (context.protocol !== "mcp" && !hasBase) {
    node.error("deny_rules require rules or access as a base");
  }
  return node
    .items()
    .flatMap((item, index) => readRule(item, context, `${label}.deny_rules[${index}]`) ?? []);
}

/** A person decides on any of what they select: they are read like rules that refuse. */
function readAsked(endpoint: EndpointNode, label: string, context: RuleContext): readonly Rule[] {
  const items = endpoint.at("rules")?.items() ?? [];
  return items.flatMap((item, index) => {
    const ask = item.at("ask");
    if (ask === undefined) return [];
    if (ask.entries().length === 0) return ask.error("this rule asks about nothing") ?? [];
    return readRule(ask, context, `${label}.rules[${index}]`) ?? [];
  });
}

/** A message of a WebSocket cannot wait, and what a GraphQL endpoint does not allow it denies with authority. */
function refuseAskedMessages(
  node: EndpointNode,
  protocol: InspectedProtocol,
  isAsked: boolean,
): void {
  if (isAsked && (protocol === "websocket" || protocol === "graphql"))
    node.error(`ask is for the protocols rest, json-rpc and mcp, and not for ${protocol}`);
}

function readRegistered(endpoint: EndpointNode): Inspection["registered"] {
  const mode = endpoint.get("persisted_queries");
  const node = endpoint.at("graphql_persisted_queries");
  const registered = new Map<string, RegisteredOperation>();
  for (const [id, operation] of node?.entries() ?? []) {
    registered.set(id, {
      operationType: operation.get("operation_type") ?? "",
      operationName: operation.get("operation_name") ?? "",
      fields: operation.at("fields")?.values() ?? [],
    });
  }
  if (mode === "allow_registered") return registered;
  if (registered.size > 0) {
    node?.warning("registered operations are refused unless persisted_queries is allow_registered");
  }
  return new Map();
}

/** Whether messages have to be read: they are judged either as requests or as GraphQL operations. */
function readsMessages(
  node: EndpointNode,
  { allow, deny, judgesOperations }: Pick<Inspection, "allow" | "deny" | "judgesOperations">,
): boolean {
  if (judgesOperations && [...allow, ...deny].some(selectsText)) {
    node.error(
      `${websocketText} rules exclude GraphQL operation rules: a message is one or the other`,
    );
  }
  return judgesOperations || deny.some(selectsText) || !allowsEveryMessage(allow);
}

function selectsText(rule: Rule): boolean {
  return rule.kind === "http" && rule.method === websocketText;
}

/** True when no connection that is let through has a message that is not. */
function allowsEveryMessage(allow: readonly Rule[]): boolean {
  const isOpen = (rule: Rule): boolean =>
    rule.kind === "http" &&
    (rule.method === "*" || rule.method === websocketText) &&
    rule.query.length === 0;
  const everywhere = allow.some(
    (rule) => rule.kind === "http" && rule.path.pattern === "**" && isOpen(rule),
  );
  return everywhere || allow.every((rule) => isOpen(rule) && !selectsText(rule));
}
