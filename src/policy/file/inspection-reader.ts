/** Reads what an endpoint says about requests: protocol, enforcement, presets, rules and limits. */
import type { EndpointContext, EndpointFields } from "./endpoint-context.ts";
import type { Inspection, RegisteredOperation } from "../endpoint.ts";
import type { GlobTable } from "../../pattern/glob.ts";
import type { Node } from "./node.ts";
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
const maxBodyLimitBytes = 1 << 30;

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
  node: Node,
  fields: EndpointFields,
  label: string,
  context: EndpointContext,
): Inspection | undefined {
  const protocol = readProtocol(fields);
  if (protocol === undefined) return undefined;
  checkOtherProtocols(fields, protocol);
  const mcp = readMcpOptions(fields);
  const rules: RuleContext = {
    protocol,
    side: "allow",
    globs: context.globs,
    allowsAllMethods: mcp.allowsAllMethods,
    strictToolNames: mcp.strictToolNames,
  };
  const allow = readAllow(node, fields, label, rules);
  const deny = readDeny(fields, label, { ...rules, side: "deny" });
  const judgesOperations =
    protocol === "websocket" && [...allow, ...deny].some((rule) => rule.kind === "graphql");
  return {
    protocol,
    enforcement: readEnforcement(node, fields, context),
    allow,
    deny,
    bodyLimitBytes: mcp.bodyLimitBytes ?? readBodyLimit(fields) ?? defaultBodyLimitBytes,
    allowsEncodedSlash: fields.get("allow_encoded_slash")?.boolean() ?? false,
    allowsAmbiguousPath: fields.get("allow_ambiguous_path")?.boolean() ?? false,
    registered: readRegistered(fields),
    strictToolNames: mcp.strictToolNames,
    allowsAllMethods: mcp.allowsAllMethods,
    judgesOperations,
    judgesMessages:
      protocol === "websocket" && readsMessages(node, { allow, deny, judgesOperations }),
  };
}

function readProtocol(fields: EndpointFields): InspectedProtocol | undefined {
  const node = fields.get("protocol");
  if (node?.value === "sql") {
    return node.error("protocol 'sql' is not enforced by this proxy: SQL is not inspected");
  }
  return node?.oneOf(inspectedProtocols);
}

/** Options of one protocol on another would be ignored, so they are refused. */
function checkOtherProtocols(fields: EndpointFields, protocol: InspectedProtocol): void {
  const owners: Readonly<Record<string, readonly InspectedProtocol[]>> = {
    json_rpc: ["json-rpc"],
    mcp: ["mcp"],
    persisted_queries: ["graphql", "websocket"],
    graphql_persisted_queries: ["graphql", "websocket"],
    graphql_max_body_bytes: ["graphql", "websocket"],
  };
  for (const [key, protocols] of Object.entries(owners)) {
    if (!protocols.includes(protocol)) {
      fields.get(key)?.error(`'${key}' has no meaning with protocol ${protocol}`);
    }
  }
}

function readEnforcement(
  node: Node,
  fields: EndpointFields,
  { dialect }: EndpointContext,
): Inspection["enforcement"] {
  const written = fields.get("enforcement");
  if (written !== undefined) return written.oneOf(["enforce", "audit"] as const) ?? "enforce";
  if (dialect.enforcementDefault === "audit") {
    node.warning("no enforcement is written: violations are recorded and let through (audit)");
  }
  return dialect.enforcementDefault;
}

interface McpOptions {
  readonly strictToolNames: boolean;
  readonly allowsAllMethods: boolean;
  readonly bodyLimitBytes: number | undefined;
}

function readMcpOptions(fields: EndpointFields): McpOptions {
  const options = fields.get("mcp")?.fields({
    known: ["max_body_bytes", "strict_tool_names", "allow_all_known_mcp_methods"],
  });
  return {
    strictToolNames: options?.get("strict_tool_names")?.boolean() ?? true,
    allowsAllMethods: options?.get("allow_all_known_mcp_methods")?.boolean() ?? false,
    bodyLimitBytes: options?.get("max_body_bytes")?.integer(1, maxBodyLimitBytes),
  };
}

function readBodyLimit(fields: EndpointFields): number | undefined {
  const rpc = fields.get("json_rpc")?.fields({ known: ["max_body_bytes"] });
  const node = rpc?.get("max_body_bytes") ?? fields.get("graphql_max_body_bytes");
  return node?.integer(1, maxBodyLimitBytes);
}

function readAllow(
  node: Node,
  fields: EndpointFields,
  label: string,
  context: RuleContext,
): readonly Rule[] {
  const access = fields.get("access");
  const rules = fields.get("rules");
  if (access !== undefined && rules !== undefined)
    access.error("rules and access exclude each other");
  if (access !== undefined) return readPreset(access, label, context);
  if (rules !== undefined) return readAllowList(rules, label, context);
  if (!context.allowsAllMethods)
    node.error("protocol requires rules or access to define allowed traffic");
  return [];
}

function readPreset(node: Node, label: string, context: RuleContext): readonly Rule[] {
  const table = presets[context.protocol];
  const written = node.string();
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

function readAllowList(node: Node, label: string, context: RuleContext): readonly Rule[] {
  const items = node.items();
  if (Array.isArray(node.value) && items.length === 0) {
    node.error("rules list cannot be empty (would deny all traffic)");
  }
  let isInert = items.length > 0;
  const rules = items.flatMap((item, index) => {
    const allow = item.fields({ known: ["allow"] }).get("allow");
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

function readDeny(fields: EndpointFields, label: string, context: RuleContext): readonly Rule[] {
  const node = fields.get("deny_rules");
  if (node === undefined) return [];
  const items = node.items();
  if (Array.isArray(node.value) && items.length === 0) {
    node.error("deny_rules list cannot be empty (would have no effect)");
  }
  if (context.protocol !== "mcp" && !fields.has("rules") && !fields.has("access")) {
    node.error("deny_rules require rules or access as a base");
  }
  return items.flatMap(
    (item, index) => readRule(item, context, `${label}.deny_rules[${index}]`) ?? [],
  );
}

function readRegistered(fields: EndpointFields): Inspection["registered"] {
  const mode = fields.get("persisted_queries")?.oneOf(["deny", "allow_registered"] as const);
  const node = fields.get("graphql_persisted_queries");
  const registered = new Map<string, RegisteredOperation>();
  for (const [id, entry] of node?.entries() ?? []) {
    const operation = entry.fields({ known: ["operation_type", "operation_name", "fields"] });
    const type = operation.get("operation_type");
    if (type === undefined) entry.error("a registered operation needs operation_type");
    registered.set(id, {
      operationType: type?.oneOf(["query", "mutation", "subscription"] as const) ?? "",
      operationName: operation.get("operation_name")?.string() ?? "",
      fields:
        operation
          .get("fields")
          ?.items()
          .flatMap((item) => item.string() ?? []) ?? [],
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
  node: Node,
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
