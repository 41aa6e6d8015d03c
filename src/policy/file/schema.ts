/** The policy file in the OpenShell format, and the lists of hosts: their shape and what each key means. */
import { z } from "zod";
import { inspectedProtocols, operationTypes } from "../rule.ts";

const maxBodyLimitBytes = 1 << 30;

function whole(low: number, high: number): z.ZodInt {
  const error = `must be between ${low} and ${high}`;
  return z.int({ error: "must be a whole number" }).min(low, { error }).max(high, { error });
}

/** A key of the file format that this proxy does not enforce. */
function refused(reason: string): z.ZodOptional<z.ZodNever> {
  const words = `not enforced by this proxy: ${reason}`;
  return z
    .never({ error: `is ${words}` })
    .optional()
    .meta({ description: `Refused: ${words}.` });
}

/** A switch whose `false` is what this proxy does anyway, and whose `true` it cannot do. */
function off(reason: string): z.ZodOptional<z.ZodLiteral<false>> {
  return z
    .literal(false, { error: `must be false: true is not enforced, as ${reason}` })
    .optional()
    .describe(`Only false: ${reason}.`);
}

function names(key: string): z.ZodArray<z.ZodString> {
  return z
    .array(z.string())
    .min(1, { error: `'${key}' must not be empty; leave it out to mean every one` });
}

const port = whole(1, 65_535);
const bodyLimit = whole(1, maxBodyLimitBytes).optional();
const patterns = z.array(z.string()).min(1, { error: "list must not be empty" });
const callers = names("callers")
  .optional()
  .describe("Authenticated names of the agents that this is for; without it every one.");

const matcher = z.union(
  [
    z.string(),
    z.strictObject({
      glob: z.string().optional().describe("A pattern in which * stops at dots."),
      any: patterns.optional().describe("Patterns of which one must match."),
    }),
  ],
  { error: "must be a pattern, {glob: …} or {any: […]}" },
);

const rule = z.strictObject({
  method: z
    .string()
    .optional()
    .describe(
      "Method of HTTP, or * for any; WEBSOCKET_TEXT is a message of a WebSocket. With json-rpc and mcp the method that is called.",
    ),
  path: z
    .string()
    .optional()
    .describe(
      "Canonical path; * stays within one segment, ** crosses. A rule without it never matches.",
    ),
  query: z
    .record(z.string(), matcher)
    .optional()
    .describe("Patterns of query values by key; each key has to be there."),
  operation_type: z
    .string()
    .optional()
    .describe(`Type of a GraphQL operation: ${operationTypes.join(", ")}.`)
    .meta({ examples: [...operationTypes] }),
  operation_name: z.string().optional().describe("Pattern of the name of a GraphQL operation."),
  fields: patterns.optional().describe("Patterns of the root fields of a GraphQL operation."),
  tool: matcher
    .optional()
    .describe("Pattern of the name of an MCP tool; the method is tools/call."),
  params: z
    .strictObject({
      name: matcher.optional().describe("The same as tool, by its name on the wire."),
      arguments: refused("tool arguments are not matched by this file format"),
    })
    .optional()
    .describe("Parameters of an MCP call."),
  command: refused("SQL is not inspected"),
});

const registeredOperation = z.strictObject({
  operation_type: z
    .enum(["query", "mutation", "subscription"])
    .describe("Type of the operation that the id stands for."),
  operation_name: z.string().optional().describe("Name of the operation."),
  fields: z.array(z.string()).optional().describe("Root fields of the operation."),
});

const protocols = ["", "tcp", ...inspectedProtocols] as const;

const endpoint = z.strictObject({
  host: z
    .string()
    .optional()
    .describe(
      "Name, address, or pattern in which * stays within one label and a leading ** crosses. Empty only with allowed_ips.",
    ),
  port: port.optional().describe("The port; this or ports is needed."),
  ports: z.array(port).optional().describe("The ports; they win over port."),
  path: z
    .string()
    .optional()
    .describe("Pattern of the paths that this endpoint is about; without it all."),
  protocol: z
    .enum(protocols, {
      error: ({ input }) =>
        input === "sql"
          ? "protocol 'sql' is not enforced by this proxy: SQL is not inspected"
          : undefined,
    })
    .optional()
    .describe("What requests are judged as. Without it, or with tcp, the host is open whole."),
  tls: z
    .enum(["", "skip", "terminate", "passthrough"])
    .optional()
    .describe(
      "skip leaves TLS unopened; terminate and passthrough are deprecated and say nothing.",
    ),
  enforcement: z
    .enum(["enforce", "audit"])
    .optional()
    .describe(
      "Whether a violation is refused, or recorded and let through. Without it the plugin's enforcement_default, which is audit.",
    ),
  access: z
    .string()
    .optional()
    .describe("A preset in place of rules: read-only, read-write or full.")
    .meta({ examples: ["read-only", "read-write", "full"] }),
  rules: z
    .array(
      z.strictObject({
        allow: rule.optional().describe("What is allowed. A rule without it allows nothing."),
      }),
    )
    .min(1, { error: "rules list cannot be empty (would deny all traffic)" })
    .optional()
    .describe("What is allowed; excludes access."),
  deny_rules: z
    .array(rule)
    .min(1, { error: "deny_rules list cannot be empty (would have no effect)" })
    .optional()
    .describe("What is refused whatever else allows it; needs rules or access, except with mcp."),
  allowed_ips: z
    .array(z.string())
    .optional()
    .describe("The only addresses and ranges that the endpoint is dialled at."),
  allow_encoded_slash: z.boolean().optional().describe("%2F may stand in a path. Default false."),
  allow_ambiguous_path: z
    .boolean()
    .optional()
    .describe("An extension: the server takes paths as they are spelt. Default false."),
  persisted_queries: z
    .enum(["deny", "allow_registered"])
    .optional()
    .describe(
      "What becomes of a GraphQL request that only names a stored operation. Default deny.",
    ),
  graphql_persisted_queries: z
    .record(z.string(), registeredOperation)
    .optional()
    .describe("Stored GraphQL operations by id or hash."),
  graphql_max_body_bytes: bodyLimit.describe("Largest GraphQL request. Default 65536."),
  json_rpc: z
    .strictObject({ max_body_bytes: bodyLimit.describe("Largest request. Default 65536.") })
    .optional()
    .describe("Settings of protocol json-rpc."),
  mcp: z
    .strictObject({
      max_body_bytes: bodyLimit.describe("Largest request. Default 65536."),
      strict_tool_names: z
        .boolean()
        .optional()
        .describe("Names of tools have up to 128 letters, digits, '_', '.' and '-'. Default true."),
      allow_all_known_mcp_methods: z
        .boolean()
        .optional()
        .describe("Every method is allowed that no rule of tools/call is about. Default false."),
    })
    .optional()
    .describe("Settings of protocol mcp."),
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

const entry = z.strictObject({
  name: z.string().optional().describe("Name that people read; without it the key."),
  endpoints: z.array(endpoint).optional().describe("What may be reached."),
  binaries: z
    .array(
      z.strictObject({
        path: z
          .string({
            error: ({ input }) => (input === undefined ? "a binary needs path" : undefined),
          })
          .min(1, { error: "path must not be empty" })
          .describe("Path of an executable, or a pattern with *."),
        harness: z.unknown().optional().describe("Without effect in this file format."),
      }),
    )
    .optional()
    .describe("Who may reach it; without it the plugin's empty_binaries says who."),
  callers,
});

/** The value of `network_policies`. */
export const networkPolicies = z.record(z.string(), entry);

/** Sections about the process sandbox: another component reads them from the same file and enforces them. */
export const sandboxSections = ["filesystem_policy", "landlock", "process"] as const;

const sandbox = z
  .unknown()
  .optional()
  .describe("For the process sandbox; this proxy enforces the network part only.");

/** A policy file. */
export const policySchema = z.strictObject({
  version: whole(0, 0xff_ff_ff_ff).optional().describe("Version of the format: 1."),
  network_policies: networkPolicies
    .optional()
    .describe("Entries by name: endpoints, and who may reach them. What none allows is refused."),
  network_middlewares: z
    .record(z.string(), z.never({ error: "is not enforced by this proxy: use plugins instead" }))
    .optional()
    .describe("Only empty: middlewares are plugins of the proxy."),
  filesystem_policy: sandbox,
  landlock: sandbox,
  process: sandbox,
});

const item = z.union(
  [
    z.string(),
    z.strictObject({
      host: z.string({
        error: ({ input }) => (input === undefined ? "an item needs host" : undefined),
      }),
      port: port.optional(),
      ports: z
        .array(port)
        .min(1, { error: "'ports' must not be empty; leave it out to mean every one" })
        .optional(),
      methods: names("methods").optional(),
      paths: names("paths").optional(),
      callers,
    }),
  ],
  { error: "must be a host, or a mapping with the key host" },
);

/** The lists `allow` and `deny` of a configuration. */
export const allowlistSchema = z.object({
  allow: z.array(item).optional(),
  deny: z.array(item).optional(),
});

/** What may stand at each place of the format. */
export type PolicyFile = z.output<typeof policySchema>;
export type EntrySource = z.output<typeof entry>;
export type EndpointSource = z.output<typeof endpoint>;
export type RuleSource = z.output<typeof rule>;
export type MatcherSource = z.output<typeof matcher>;
export type ItemSource = z.output<typeof item>;
