/** Reads the rules of one endpoint: which fields apply to which protocol, and which combinations select nothing. */
import { canonicalGlob, type Delimiters, type Glob, type GlobTable } from "../../pattern/glob.ts";
import { GlobSyntaxError } from "../../pattern/glob-syntax.ts";
import type { Keys, Node } from "./node.ts";
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

type Fields = ReadonlyMap<string, Node>;

const httpFields = ["method", "path", "query"];
const graphqlFields = ["operation_type", "operation_name", "fields"];
const knownMethods = new Set(
  `* GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT ${websocketText}`.split(" "),
);

/** Which fields a rule of each protocol may have. */
const fieldsOf: Readonly<Record<InspectedProtocol, readonly string[]>> = {
  rest: httpFields,
  graphql: graphqlFields,
  websocket: [...httpFields, ...graphqlFields],
  "json-rpc": ["method"],
  mcp: ["method", "tool", "params"],
};
const allFields = [...httpFields, ...graphqlFields, "tool", "params"];

function makeKeys(protocol: InspectedProtocol): Keys {
  const known = fieldsOf[protocol];
  const refused = allFields
    .filter((field) => !known.includes(field))
    .map((field) => [field, `a rule of protocol ${protocol} selects by ${known.join(", ")}`]);
  return {
    known,
    refused: { ...Object.fromEntries(refused), command: "SQL is not inspected" },
  };
}

const keysOf: Readonly<Record<InspectedProtocol, Keys>> = {
  rest: makeKeys("rest"),
  graphql: makeKeys("graphql"),
  websocket: makeKeys("websocket"),
  "json-rpc": makeKeys("json-rpc"),
  mcp: makeKeys("mcp"),
};

/** A pattern of the file, or a problem. */
export function readGlob(node: Node, delimiters: Delimiters, globs: GlobTable): Glob | undefined {
  const pattern = node.string();
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
export function readRule(node: Node, context: RuleContext, label: string): Rule | undefined {
  const fields = node.fields(keysOf[context.protocol]);
  const { protocol } = context;
  if (protocol === "json-rpc") return readJsonRpcRule(node, fields, label);
  if (protocol === "mcp") return readMcpRule(node, fields, context, label);
  const selectsOperations =
    protocol === "graphql" || graphqlFields.some((field) => fields.has(field));
  return selectsOperations
    ? readGraphqlRule(node, fields, context, label)
    : readHttpRule(node, fields, context, label);
}

function readHttpRule(
  node: Node,
  fields: Fields,
  context: RuleContext,
  label: string,
): HttpRule | undefined {
  const method = fields.get("method")?.string()?.toUpperCase();
  const pathNode = fields.get("path");
  const path = pathNode === undefined ? undefined : readGlob(pathNode, ["/"], context.globs);
  const queryNode = fields.get("query");
  const query = queryNode === undefined ? [] : readQuery(queryNode, context.globs);
  for (const field of ["method", "path"]) {
    if (!fields.has(field)) node.warning(`a rule without ${field} never matches`);
  }
  if (method !== undefined && !knownMethods.has(method)) {
    fields.get("method")?.warning(`'${method}' is not a method of HTTP`);
  }
  if (method === undefined || path === undefined) return undefined;
  return { kind: "http", label, method, path, query };
}

function readQuery(node: Node, globs: GlobTable): HttpRule["query"] {
  return node.entries().flatMap(([key, value]) => {
    const values = readMatcher(value, globs);
    return values === undefined ? [] : [[key, values] as const];
  });
}

/** A pattern, `{glob: pattern}` or `{any: [patterns]}`; `*` in it stops at dots and crosses slashes. */
function readMatcher(node: Node, globs: GlobTable): ValueMatcher | undefined {
  if (typeof node.value === "string") return single(readGlob(node, [], globs));
  const fields = node.fields({ known: ["glob", "any"] });
  const glob = fields.get("glob");
  const any = fields.get("any");
  if (glob !== undefined && any !== undefined) return node.error("has both glob and any");
  if (glob !== undefined) return single(readGlob(glob, [], globs));
  if (any === undefined) return node.error("must be a pattern, {glob: …} or {any: […]}");
  return readGlobs(any, globs);
}

function single(glob: Glob | undefined): ValueMatcher | undefined {
  return glob === undefined ? undefined : [glob];
}

function readGlobs(node: Node, globs: GlobTable): ValueMatcher | undefined {
  const items = node.items();
  if (Array.isArray(node.value) && items.length === 0) return node.error("list must not be empty");
  const read = items.flatMap((item) => readGlob(item, [], globs) ?? []);
  return read.length === 0 ? undefined : read;
}

function readGraphqlRule(
  node: Node,
  fields: Fields,
  context: RuleContext,
  label: string,
): GraphqlRule | undefined {
  for (const field of httpFields) {
    fields.get(field)?.error("a rule selects either requests or GraphQL operations, not both");
  }
  const typeNode = fields.get("operation_type");
  if (typeNode === undefined) return node.error("a GraphQL rule needs operation_type");
  const written = typeNode.string();
  const operationType = operationTypes.find((type) => type === written?.toLowerCase());
  if (operationType === undefined) {
    if (written !== undefined) typeNode.error(`must be one of ${operationTypes.join(", ")}`);
    return undefined;
  }
  const nameNode = fields.get("operation_name");
  const operationName = nameNode === undefined ? undefined : readGlob(nameNode, [], context.globs);
  const fieldsNode = fields.get("fields");
  const rootFields = fieldsNode === undefined ? [] : readGlobs(fieldsNode, context.globs);
  if (rootFields === undefined || (nameNode !== undefined && operationName === undefined)) {
    return undefined;
  }
  return {
    kind: "graphql",
    label,
    operationType,
    fields: rootFields,
    ...(operationName === undefined ? {} : { operationName }),
  };
}

function hasWildcard(pattern: string): boolean {
  return /[*?[{]/.test(pattern);
}

function readJsonRpcRule(node: Node, fields: Fields, label: string): RpcRule | undefined {
  const methodNode = fields.get("method");
  if (methodNode === undefined) return node.error("a JSON-RPC rule needs method");
  const method = methodNode.string();
  if (method === undefined) return undefined;
  if (method === "") return methodNode.error("method must not be empty");
  if (method !== "*" && hasWildcard(method)) {
    return methodNode.error("JSON-RPC methods do not support glob patterns; write the name or '*'");
  }
  return { kind: "rpc", label, method: method === "*" ? undefined : method };
}

function readMcpRule(
  node: Node,
  fields: Fields,
  context: RuleContext,
  label: string,
): RpcRule | undefined {
  const toolNode = toolSelector(node, fields);
  const tool = toolNode === undefined ? undefined : readMatcher(toolNode, context.globs);
  if (toolNode !== undefined && tool === undefined) return undefined;
  if (context.strictToolNames && toolNode !== undefined) checkToolNames(toolNode, tool ?? []);
  const methodNode = fields.get("method");
  if (methodNode === undefined) {
    if (!context.allowsAllMethods) {
      return node.error("an MCP rule needs method unless mcp.allow_all_known_mcp_methods is true");
    }
    if (tool !== undefined) return { kind: "rpc", label, method: "tools/call", tool };
    // `allow: {}` repeats what the option already grants; as a deny rule it would select nothing.
    return context.side === "allow" ? undefined : node.error("this rule selects nothing");
  }
  const written = methodNode.string();
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
  return { kind: "rpc", label, method, ...(tool === undefined ? {} : { tool }) };
}

/** `tool`, or `params.name`, which is the same selector by its wire name. */
function toolSelector(node: Node, fields: Fields): Node | undefined {
  const tool = fields.get("tool");
  const params = fields.get("params")?.fields({
    known: ["name"],
    refused: { arguments: "tool arguments are not matched by this file format" },
  });
  const name = params?.get("name");
  if (tool !== undefined && name !== undefined) {
    return node.error("a rule has either tool or params.name, not both");
  }
  return tool ?? name;
}

function checkToolNames(node: Node, tool: ValueMatcher): void {
  for (const { pattern } of tool) {
    if (/[^\w.\-*?[\]{},!^]/.test(pattern) || pattern.length > 128) {
      node.error(
        `tool '${pattern.slice(0, 64)}' can never match: with mcp.strict_tool_names a name has up to 128 letters, digits, '_', '.' and '-'`,
      );
    }
  }
}
