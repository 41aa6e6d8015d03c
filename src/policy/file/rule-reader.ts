/** Reads the rules of one endpoint: which fields apply to which protocol, and which combinations select nothing. */
import { canonicalGlob, type Delimiters, type Glob, type GlobTable } from "../../pattern/glob.ts";
import { GlobSyntaxError } from "../../pattern/glob-syntax.ts";
import { messageOf } from "../../errors.ts";
import { compileArgumentSchema } from "../tools/argument-schema.ts";
import type { Node } from "./node.ts";
import type { MatcherSource, RuleSource } from "./schema.ts";
import {
  type GraphqlRule,
  type HttpRule,
  type InspectedProtocol,
  operationTypes,
  type RpcRule,
  type Rule,
  type ValueMatcher,
  websocketText,
} from "../rule.ts";

/** What the rules of an endpoint are read for. */
export interface RuleContext {
  readonly protocol: InspectedProtocol;
  readonly side: "allow" | "deny";
  readonly globs: GlobTable;
  /** `mcp.allow_all_known_mcp_methods`: a rule may then name a tool without its method. */
  readonly allowsAllMethods: boolean;
  /** `mcp.strict_tool_names`. */
  readonly strictToolNames: boolean;
}

type RuleNode = Node<RuleSource>;

const httpFields = ["method", "path", "query"] as const;
const graphqlFields = ["operation_type", "operation_name", "fields"] as const;
const allFields = [...httpFields, ...graphqlFields, "tool", "params", "schema"] as const;
const knownMethods = new Set(
  `* GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT ${websocketText}`.split(" "),
);

/** Which fields a rule of each protocol may have. */
const fieldsOf: Readonly<Record<InspectedProtocol, readonly (typeof allFields)[number][]>> = {
  rest: httpFields,
  graphql: graphqlFields,
  websocket: [...httpFields, ...graphqlFields],
  "json-rpc": ["method"],
  mcp: ["method", "tool", "params", "schema"],
};

/** A pattern of the file, or a problem. */
export function readGlob(
  node: Node<string>,
  delimiters: Delimiters,
  globs: GlobTable,
): Glob | undefined {
  const pattern = node.value;
  if (pattern === undefined) return undefined;
  if (pattern === "") return node.error("pattern must not be empty");
  try {
    return globs.compile(
      delimiters?.includes("/") === true ? canonicalGlob(pattern) : pattern,
      delimiters,
    );
  } catch (error) {
    if (error instanceof GlobSyntaxError) return node.error(`bad pattern: ${error.message}`);
    throw error;
  }
}

/** Reads one rule (without its `allow` wrapper); undefined when it is wrong or selects nothing. */
export function readRule(node: RuleNode, context: RuleContext, label: string): Rule | undefined {
  const { protocol } = context;
  const known = fieldsOf[protocol];
  for (const field of allFields.filter((name) => !known.includes(name))) {
    node.at(field)?.error(`a rule of protocol ${protocol} selects by ${known.join(", ")}`);
  }
  if (protocol === "json-rpc") return readJsonRpcRule(node, label);
  if (protocol === "mcp") return readMcpRule(node, context, label);
  const selectsOperations =
    protocol === "graphql" ||
    (protocol === "websocket" && graphqlFields.some((field) => node.at(field) !== undefined));
  return selectsOperations
    ? readGraphqlRule(node, context, label)
    : readHttpRule(node, context, label);
}

function readHttpRule(node: RuleNode, context: RuleContext, label: string): HttpRule | undefined {
  const method = node.get("method")?.toUpperCase();
  const pathNode = node.at("path");
  const path = pathNode === undefined ? undefined : readGlob(pathNode, ["/"], context.globs);
  const queryNode = node.at("query");
  const query = queryNode === undefined ? [] : readQuery(queryNode, context.globs);
  for (const field of ["method", "path"] as const) {
    if (node.at(field) === undefined) node.warning(`a rule without ${field} never matches`);
  }
  if (method !== undefined && !knownMethods.has(method)) {
    node.at("method")?.warning(`'${method}' is not a method of HTTP`);
  }
  if (method === undefined || path === undefined) return undefined;
  return { kind: "http", label, method, path, query };
}

function readQuery(
  node: Node<NonNullable<RuleSource["query"]>>,
  globs: GlobTable,
): HttpRule["query"] {
  return node.entries().flatMap(([key, value]) => {
    const values = readMatcher(value, globs);
    return values === undefined ? [] : [[key, values] as const];
  });
}

/** A pattern, `{glob: pattern}` or `{any: [patterns]}`; `*` in it stops at dots and crosses slashes. */
function readMatcher(node: Node<MatcherSource>, globs: GlobTable): ValueMatcher | undefined {
  if (typeof node.value === "string") return single(readGlob(node as Node<string>, [], globs));
  const fields = node as Node<Exclude<MatcherSource, string>>;
  const glob = fields.at("glob");
  const any = fields.at("any");
  if (glob !== undefined && any !== undefined) return node.error("has both glob and any");
  if (glob !== undefined) return single(readGlob(glob, [], globs));
  if (any !== undefined) return readGlobs(any, globs);
  return node.value && node.error("must be a pattern, {glob: …} or {any: […]}");
}

function single(glob: Glob | undefined): ValueMatcher | undefined {
  return glob === undefined ? undefined : [glob];
}

function readGlobs(node: Node<string[]>, globs: GlobTable): ValueMatcher | undefined {
  const read = node.items().flatMap((item) => readGlob(item, [], globs) ?? []);
  return read.length === 0 ? undefined : read;
}

function readGraphqlRule(
  node: RuleNode,
  context: RuleContext,
  label: string,
): GraphqlRule | undefined {
  if (context.protocol === "websocket") {
    for (const field of httpFields) {
      node.at(field)?.error("a rule selects either requests or GraphQL operations, not both");
    }
  }
  const typeNode = node.at("operation_type");
  if (typeNode === undefined) return node.error("a GraphQL rule needs operation_type");
  const written = typeNode.value;
  const operationType = operationTypes.find((type) => type === written?.toLowerCase());
  if (operationType === undefined) {
    if (written !== undefined) typeNode.error(`must be one of ${operationTypes.join(", ")}`);
    return undefined;
  }
  const nameNode = node.at("operation_name");
  const operationName = nameNode === undefined ? undefined : readGlob(nameNode, [], context.globs);
  const fieldsNode = node.at("fields");
  const rootFields = fieldsNode === undefined ? [] : readGlobs(fieldsNode, context.globs);
  if (rootFields === undefined || (nameNode !== undefined && operationName === undefined)) {
    return undefined;
  }
  return { kind: "graphql", label, operationType, fields: rootFields, operationName };
}

function hasWildcard(pattern: string): boolean {
  return /[*?[{]/.test(pattern);
}

function readJsonRpcRule(node: RuleNode, label: string): RpcRule | undefined {
  const methodNode = node.at("method");
  if (methodNode === undefined) return node.error("a JSON-RPC rule needs method");
  const method = methodNode.value;
  if (method === undefined) return undefined;
  if (method === "") return methodNode.error("method must not be empty");
  if (method !== "*" && hasWildcard(method)) {
    return methodNode.error("JSON-RPC methods do not support glob patterns; write the name or '*'");
  }
  return { kind: "rpc", label, method: method === "*" ? undefined : method };
}

function readMcpRule(node: RuleNode, context: RuleContext, label: string): RpcRule | undefined {
  const toolNode = toolSelector(node);
  const tool = toolNode === undefined ? undefined : readMatcher(toolNode, context.globs);
  if (toolNode !== undefined && tool === undefined) return undefined;
  if (context.strictToolNames && toolNode !== undefined) checkToolNames(toolNode, tool ?? []);
  const selectsArguments = readSchema(node, tool, context);
  const methodNode = node.at("method");
  if (methodNode === undefined) {
    if (!context.allowsAllMethods) {
      return node.error("an MCP rule needs method unless mcp.allow_all_known_mcp_methods is true");
    }
    if (tool !== undefined)
      return { kind: "rpc", label, method: "tools/call", tool, selectsArguments };
    // `allow: {}` repeats what the option already grants; as a deny rule it would select nothing.
    return context.side === "allow" ? undefined : node.error("this rule selects nothing");
  }
  const written = methodNode.value;
  if (written === undefined) return undefined;
  if (tool !== undefined && written !== "tools/call") {
    return methodNode.error("must be tools/call in a rule that selects a tool");
  }
  // The expansion of allow_all_known_mcp_methods is `*`; in a rule of the file only tools/ may have patterns.
  if (hasWildcard(written) && !written.startsWith("tools/")) {
    return methodNode.error("MCP methods support patterns only in the tools/ family");
  }
  const method = hasWildcard(written) ? readGlob(methodNode, [], context.globs) : written;
  if (method === undefined) return undefined;
  if (method === "") return methodNode.error("method must not be empty");
  return { kind: "rpc", label, method, tool, selectsArguments };
}

function readSchema(
  node: RuleNode,
  tool: ValueMatcher | undefined,
  { side }: RuleContext,
): RpcRule["selectsArguments"] | undefined {
  const schema = node.at("schema");
  if (schema?.value === undefined) return undefined;
  if (tool === undefined) return schema.error("schema is about the arguments of a tool: name it");
  try {
    const compiled = compileArgumentSchema(schema.value);
    if (side === "deny") return (args) => compiled.mayMatch(args);
    return (args) => compiled.objection(args) === undefined;
  } catch (error) {
    return schema.error(`is no usable JSON Schema: ${messageOf(error)}`);
  }
}

/** `tool`, or `params.name`, which is the same selector by its wire name. */
function toolSelector(node: RuleNode): Node<MatcherSource> | undefined {
  const tool = node.at("tool");
  const name = node.at("params")?.at("name");
  if (tool !== undefined && name !== undefined) {
    return node.error("a rule has either tool or params.name, not both");
  }
  return tool ?? name;
}

function checkToolNames(node: Node<MatcherSource>, tool: ValueMatcher): void {
  for (const { pattern } of tool) {
    if (/[^\w.\-*?[\]{},!^]/.test(pattern) || pattern.length > 128) {
      node.error(
        `tool '${pattern.slice(0, 64)}' can never match: with mcp.strict_tool_names a name has up to 128 letters, digits, '_', '.' and '-'`,
      );
    }
  }
}
