/** The policy file in the OpenShell format, and the lists of hosts: their shape and what each key means. */
import { z } from "zod";
import { inspectedProtocols, operationTypes } from "../rule.ts";

/** A key that may be left out. */
function key<Schema extends z.ZodType>(schema: Schema, about: string): z.ZodOptional<Schema> {
  return schema.optional().describe(about);
}

function whole(low: number, high: number): z.ZodInt {
  const error = `must be between ${low} and ${high}`;
  return z.int({ error: "must be a whole number" }).min(low, { error }).max(high, { error });
}

/** A list that is written to hold something. */
function some<Schema extends z.ZodType>(schema: Schema, error: string): z.ZodArray<Schema> {
  return z.array(schema).min(1, { error });
}

function someOf<Schema extends z.ZodType>(schema: Schema, name: string): z.ZodArray<Schema> {
  return some(schema, `'${name}' must not be empty; leave it out to mean every one`);
}

/** A text that has to be there. */
function needed(error: string): z.ZodString {
  return z.string({ error: ({ input }) => (input === undefined ? error : undefined) });
}

/** A key of the file format that this proxy does not enforce. */
function refused(reason: string): z.ZodOptional<z.ZodNever> {
  const words = `not enforced by this proxy: ${reason}`;
  return key(z.never({ error: `is ${words}` }), `Refused: ${words}.`);
}

/** A switch whose `false` is what this proxy does anyway, and whose `true` it cannot do. */
function off(reason: string): z.ZodOptional<z.ZodLiteral<false>> {
  const error = `must be false: true is not enforced, as ${reason}`;
  return key(z.literal(false, { error }), `Only false: ${reason}.`);
}

const text = z.string();
const flag = z.boolean();
const port = whole(1, 65_535);
const patterns = some(text, "list must not be empty");
const callers = key(
  someOf(text.regex(/\S/, { error: "must not be blank" }), "callers"),
  "Authenticated names of the agents that this is for; without it every one.",
);
const max_body_bytes = key(
  whole(1, 1 << 30),
  "Largest request that is read, within limits.max_body. Default 65536.",
);

const matcher = z.union(
  [
    text,
    z.strictObject({
      glob: key(text, "A pattern in which * stops at dots."),
      any: key(patterns, "Patterns of which one must match."),
    }),
  ],
  { error: "must be a pattern, {glob: …} or {any: […]}" },
);

const params = z.strictObject({
  name: key(matcher, "The same as tool, by its name on the wire."),
  arguments: refused("tool arguments are not matched by params: write a schema beside tool"),
});

const rule = z.strictObject({
  method: key(
    text,
    "Method of HTTP, or * for any; WEBSOCKET_TEXT is a message of a WebSocket. With json-rpc and mcp the method that is called.",
  ),
  path: key(
    text,
    "Canonical path; * stays within a segment, ** crosses. Needed where requests of HTTP are judged.",
  ),
  query: key(
    z.record(z.string(), matcher),
    "Patterns of query values by key; each key has to be there.",
  ),
  operation_type: key(text, `Type of a GraphQL operation: ${operationTypes.join(", ")}.`),
  operation_name: key(text, "Pattern of the name of a GraphQL operation."),
  fields: key(patterns, "Patterns of the root fields of a GraphQL operation."),
  tool: key(matcher, "Pattern of the name of an MCP tool; the method is tools/call."),
  params: key(params, "Parameters of an MCP call."),
  schema: key(
    z.record(z.string(), z.unknown()),
    "An extension: a JSON Schema (2020-12) that the arguments of the tool have to match; a deny rule selects those that do.",
  ),
  command: refused("SQL is not inspected"),
});

const registeredOperation = z.strictObject({
  operation_type: z.enum(["query", "mutation", "subscription"]).describe("Type of the operation."),
  operation_name: key(text, "Name of the operation."),
  fields: key(z.array(text), "Root fields of the operation."),
});

const protocol = z.enum(["", "tcp", ...inspectedProtocols], {
  error: ({ input }) =>
    input === "sql"
      ? "protocol 'sql' is not enforced by this proxy: SQL is not inspected"
      : undefined,
});

const mcp = z.strictObject({
  max_body_bytes,
  strict_tool_names: key(
    flag,
    "Names of tools have up to 128 letters, digits, '_', '.' and '-'. Default true.",
  ),
  allow_all_known_mcp_methods: key(
    flag,
    "Allows every method, calls of tools only where no rule names a tool. Default false.",
  ),
});

const allowRule = z.strictObject({
  allow: key(rule, "What is allowed. A rule without it allows nothing."),
  ask: key(rule, "An extension: what a person decides on, whatever else allows it."),
});

const endpoint = z.strictObject({
  host: key(
    text,
    "Name, address, or pattern in which * stays within one label and a leading ** crosses. Empty only with allowed_ips.",
  ),
  port: key(port, "The port; this or ports is needed."),
  ports: key(z.array(port), "The ports; they win over port."),
  path: key(text, "Pattern of the paths that this endpoint is about; without it all."),
  protocol: key(
    protocol,
    "What requests are judged as. Without it, or with tcp, the host is open whole.",
  ),
  tls: key(
    z.enum(["", "skip", "terminate", "passthrough"]),
    "skip leaves TLS unopened; terminate and passthrough are deprecated and say nothing.",
  ),
  enforcement: key(
    z.enum(["enforce", "audit", "ask"]),
    "Whether a violation is refused, recorded and let through, or decided by a person (ask, an extension; without protocol a person decides on each connection). Without it the plugin's enforcement_default, which is audit.",
  ),
  access: key(text, "A preset in place of rules: read-only, read-write or full."),
  rules: key(
    some(allowRule, "rules list cannot be empty (would deny all traffic)"),
    "What is allowed; excludes access.",
  ),
  deny_rules: key(
    some(rule, "deny_rules list cannot be empty (would have no effect)"),
    "What is refused whatever else allows it; needs rules or access, except with mcp.",
  ),
  allowed_ips: key(z.array(text), "The only addresses and ranges that the endpoint is dialled at."),
  allow_encoded_slash: key(flag, "%2F may stand in a path. Default false."),
  allow_ambiguous_path: key(
    flag,
    "An extension: the server takes paths as they are spelt. Default false.",
  ),
  persisted_queries: key(
    z.enum(["deny", "allow_registered"]),
    "What becomes of a GraphQL request that only names a stored operation. Default deny.",
  ),
  graphql_persisted_queries: key(
    z.record(z.string(), registeredOperation),
    "Stored GraphQL operations by id or hash.",
  ),
  graphql_max_body_bytes: max_body_bytes,
  json_rpc: key(z.strictObject({ max_body_bytes }), "Settings of protocol json-rpc."),
  mcp: key(mcp, "Settings of protocol mcp."),
  websocket_credential_rewrite: off("credentials in WebSocket messages are not rewritten"),
  request_body_credential_rewrite: off(
    "credentials in bodies are rewritten by the plugin that owns them",
  ),
  allow_uninspected_credentials: off("there is no such guard to switch off"),
  credential_signing: refused("requests are not re-signed"),
  signing_service: refused("requests are not re-signed"),
  signing_region: refused("requests are not re-signed"),
  credential_binding: refused("credentials are bound by the plugin that attaches them"),
  advisor_proposed: refused("it is not a key of policy files"),
  provider_credentialed: refused("it is not a key of policy files"),
});

const binary = z.strictObject({
  path: needed("a binary needs path")
    .min(1, { error: "path must not be empty" })
    .describe("Path of an executable, or a pattern with *."),
  harness: key(z.unknown(), "Without effect in this file format."),
});

/** An entry of `network_policies`. */
export const policyEntry = z.strictObject({
  name: key(text, "Name that people read; without it the key."),
  endpoints: key(z.array(endpoint), "What may be reached."),
  binaries: key(
    z.array(binary),
    "Who may reach it; without it the plugin's empty_binaries says who.",
  ),
  callers,
});

/** The value of `network_policies`. */
export const networkPolicies = z.record(z.string(), policyEntry);

/** Sections about the process sandbox: another component reads them from the same file and enforces them. */
export const sandboxSections = ["filesystem_policy", "landlock", "process"] as const;

const sandbox = key(
  z.unknown(),
  "For the process sandbox; this proxy enforces the network part only.",
);
const noMiddleware = z.never({ error: "is not enforced by this proxy: use plugins instead" });

/** A policy file. */
export const policySchema = z.strictObject({
  version: key(whole(0, 0xff_ff_ff_ff), "Version of the format: 1."),
  network_policies: key(
    networkPolicies,
    "Entries by name: endpoints, and who may reach them. What none allows is refused.",
  ),
  network_middlewares: key(
    z.record(z.string(), noMiddleware),
    "Only empty: middlewares are plugins of the proxy.",
  ),
  filesystem_policy: sandbox,
  landlock: sandbox,
  process: sandbox,
});

/** An element of a list of hosts. */
export const hostItem = z.union(
  [
    text,
    z.strictObject({
      host: needed("an item needs host").describe("Name, address or pattern, also with :port."),
      port: key(port, "The port; without port and ports every one."),
      ports: key(someOf(port, "ports"), "The ports."),
      methods: key(someOf(text, "methods"), "Methods of HTTP; without it every one."),
      paths: key(someOf(text, "paths"), "Patterns of paths; without it every one."),
      callers,
    }),
  ],
  { error: "must be a host, or a mapping with the key host" },
);

/** The two lists of a configuration. */
export const allowlistSchema = z.object({
  allow: z.array(hostItem).optional(),
  deny: z.array(hostItem).optional(),
});

/** What may stand at each place of the format. */
export type PolicyFile = z.output<typeof policySchema>;
export type EntrySource = z.output<typeof policyEntry>;
export type EndpointSource = z.output<typeof endpoint>;
export type RuleSource = z.output<typeof rule>;
export type MatcherSource = z.output<typeof matcher>;
export type ItemSource = z.output<typeof hostItem>;
