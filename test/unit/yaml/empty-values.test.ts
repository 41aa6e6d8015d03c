/** Optional keys that are written without a value are the same as keys that are not written. */
import { expect, test } from "vitest";
import { z } from "zod";
import { guarded, withoutEmpty } from "../../../src/yaml/empty-values.ts";
import { configSchema } from "../../../src/config/schema.ts";
import { secretConfig } from "../../../src/plugins/credentials/secret-config.ts";
import { allowlistSchema } from "../../../src/policy/file/schema.ts";
import { builtinPlugins } from "../../../src/plugins/index.ts";

const block = z.strictObject({
  mode: z.enum(["on", "off"]).default("off"),
  size: z.union([z.int(), z.string().regex(/^\d+KiB$/)]).optional(),
  ca: z.string().optional(),
  prefix: z.string().default("x-"),
  maybe: z.string().nullable().optional(),
});
const schema = z.strictObject({
  needed: z.string(),
  count: z.int().optional(),
  flag: z.boolean().default(true),
  paths: z.array(z.string()).default(["/"]),
  block: block.prefault({}),
  many: z.array(z.union([z.string(), block])).optional(),
  named: z.record(z.string(), z.string()).optional(),
  free: z.record(z.string(), z.unknown()).optional(),
  typed: z
    .discriminatedUnion("type", [
      z.strictObject({ type: z.literal("a"), scope: guarded(z.string().min(1).optional()) }),
      z.strictObject({ type: z.literal("b"), scope: z.string().min(1).optional() }),
    ])
    .optional(),
  secret: guarded(z.string().min(1).optional().describe("guarded")),
  rules: guarded(z.array(block).optional(), "all"),
  described: guarded(z.array(z.string()).optional()).describe("guarded before it is described"),
  wrapped: guarded(z.array(z.string())).min(1).default(["x"]).optional(),
});

test.each<[what: string, value: unknown, left: unknown]>([
  ["nothing", { count: null, flag: null, paths: null, block: null }, {}],
  ["an empty text", { block: { mode: "", size: "", ca: "" } }, { block: {} }],
  ["in a list", { many: ["", { mode: "" }, null] }, { many: ["", {}, null] }],
  ["an empty text for a number", { count: "", flag: "" }, { count: "", flag: "" }],
  ["an empty list", { paths: [] }, { paths: [] }],
  ["a required key", { needed: "" }, { needed: "" }],
  ["an unknown key", { other: null }, { other: null }],
  [
    "a value of a record",
    { named: { a: "" }, free: { b: null } },
    { named: { a: "" }, free: { b: null } },
  ],
  [
    "a value that has a meaning",
    { block: { prefix: "", maybe: null } },
    { block: { prefix: "", maybe: null } },
  ],
  ["a key that another type guards", { typed: { type: "b", scope: "" } }, { typed: { type: "b" } }],
  [
    "a key that its own type guards",
    { typed: { type: "a", scope: "" } },
    { typed: { type: "a", scope: "" } },
  ],
  ["a guarded key", { secret: "" }, { secret: "" }],
  [
    "guarded keys, however they were made",
    { described: null, wrapped: null },
    { described: null, wrapped: null },
  ],
  ["below a guarded key", { rules: [{ mode: "" }] }, { rules: [{ mode: "" }] }],
])("%s", (_, value, left) => {
  expect(withoutEmpty(schema, value)).toEqual(left);
});

const plugin = (name: string): z.ZodType => {
  const found = builtinPlugins.find((one) => one.name === name);
  return found?.config ?? z.never();
};

/** Keys whose absence lifts a check, or opens a way that has none. */
const guardedRows: readonly (readonly [schema: z.ZodType, value: object])[] = [
  [configSchema, { pipeline: { inbound: { default: null }, outbound: { default: "" } } }],
  [configSchema, { egress: { private_networks: null } }],
  [configSchema, { approval: { two_person: null, operators: null } }],
  [configSchema, { tls_bridge: { min_version: null } }],
  [configSchema, { audit: { signing_key_file: "" } }],
  [configSchema, { kill_switch: { file: "" } }],
  [configSchema, { mtls: { allowed_spiffe_ids: null, outbound_hosts: null } }],
  [configSchema, { mtls: { allowed_upstream_spiffe_ids: null } }],
  [plugin("token-exchange"), { routes: { rules: [{ dpop: null, places: null }] } }],
  [configSchema, { callers: null, limits: { max_requests_per_connection: null } }],
  [
    configSchema,
    {
      upstream_proxy: {
        system_roots: null,
        readiness_endpoints: null,
        automatic_no_proxy: { cluster: null },
      },
    },
  ],
  [
    plugin("jwt-validation"),
    {
      algorithms: null,
      backchannel_logout: null,
      identity_headers: null,
      placeholder_mode: null,
      token_type: null,
      required_scopes: null,
      required_claims: null,
      introspection: null,
      dpop: null,
      cors: null,
      protected_resource: null,
      allowed_hosts: null,
    },
  ],
  [plugin("token-exchange"), { actor_token_file: "", dpop: null, places: null }],
  [
    plugin("egress-policy"),
    {
      policy_file: "",
      network_policies: null,
      allow: null,
      deny: null,
      empty_binaries: "",
      unresolved_identity: "",
      enforcement_default: "",
      head_matches_get: null,
    },
  ],
  [plugin("tool-policy"), { tools: { pin: null } }],
  [plugin("opa"), { verification: null, on_undefined: "" }],
  [plugin("opa"), { verification: { keyid: "", scope: null } }],
  [
    plugin("ext-authz"),
    {
      with_request_body: null,
      allowed_headers: null,
      disallowed_headers: null,
      connect: "",
      grpc_service: { initial_metadata: null },
      http_service: {
        path_prefix: "",
        authorization_request: { allowed_headers: null, headers_to_add: null },
        authorization_response: { allowed_client_headers: null },
      },
    },
  ],
  [plugin("dlp"), { rules: null, default: null }],
  [
    plugin("dlp"),
    {
      rules: [{ detectors: null, response_detectors: null }],
      default: { detectors: null, response_detectors: null },
    },
  ],
  [plugin("prompt-guard"), { where: null, rules: null, weights: null, unread_types: "" }],
  [plugin("prompt-guard"), { classifier: null }],
  [
    plugin("prompt-guard"),
    {
      rules: [{ hosts: null, tools: null, content_types: null, threshold: null }],
      classifier: { score: null },
    },
  ],
  [plugin("budgets"), { limits: [{ hosts: null, models: null, refuses: "" }], prices_file: "" }],
  [
    plugin("static-inject"),
    {
      hosts: null,
      placeholder_in: null,
      allow_plaintext: null,
      places: [{ hosts: null, paths: null }],
    },
  ],
  [plugin("static-inject"), { places: null }],
  [secretConfig, { type: "github_app", repositories: null, permissions: null }],
  [secretConfig, { type: "vault", ca_file: "" }],
  [secretConfig, { type: "oauth_client_credentials", scopes: null, audience: "", resource: "" }],
  [
    plugin("aws-sigv4"),
    {
      keys: [
        {
          secret_access_key: "",
          secret_access_key_file: "",
          credentials: { assume_role: null },
        },
      ],
    },
  ],
];

test.each(guardedRows)(
  "what lifts a check where it is left out stays, so that it is refused: %#",
  (one, value) => {
    expect(withoutEmpty(one, value)).toEqual(value);
    const paths = (one.safeParse(value).error?.issues ?? []).map(({ path }) => path.join("."));
    expect(paths).toEqual(expect.arrayContaining(emptyPaths(value)));
  },
);

/** The places of values that are none. */
function emptyPaths(value: unknown): string[] {
  if (value === null || value === "") return [""];
  if (typeof value !== "object") return [];
  return Object.entries(value).flatMap(([key, member]) =>
    emptyPaths(member).map((rest) => (rest === "" ? key : `${key}.${rest}`)),
  );
}

test.each<[what: string, schema: z.ZodType]>([
  ["the file", configSchema],
  ...builtinPlugins.flatMap(({ name, config }): [string, z.ZodType][] =>
    config === undefined ? [] : [[name, config]],
  ),
])("every optional key of %s can be written without a value", (_, one) => {
  const { shape } = one as z.ZodObject;
  const optional = Object.entries(shape).filter(
    ([, member]) => (member as z.ZodType).safeParse(undefined).success,
  );
  const empty = Object.fromEntries(optional.map(([key]) => [key, null]));
  const left = Object.keys(withoutEmpty(one, empty) as object);
  expect(left.filter((key) => !guardedOf(one).has(key))).toEqual([]);
});

const limit = { name: "a", unit: "calls", limit: 1, window: "day" };
const toolRule = { name: "a", tools: ["b"] };
const servers = (rule: object): object => ({ servers: [{ name: "s", rules: [rule] }] });
const source = { type: "github_app", app_id: 1, private_key_file: "/k", user: "u" };
const identity = { type: "client-secret", client_id: "c" };
const aws = (rule: object): object => ({ routes: { rules: [{ host: "a.test", ...rule }] } });
const clientOf = { type: "oauth_client_credentials", token_url: "https://t.test/", identity };
const grpc = { grpc_service: { target_uri: "http://a.test:1" } };

test.each<[path: string, schema: z.ZodType, value: object]>([
  ["hosts", plugin("static-inject"), { source: "secret_dir", secret_dir: "/s", hosts: [] }],
  ["routes.rules.0.services", plugin("aws-sigv4"), aws({ services: [] })],
  ["routes.rules.0.regions", plugin("aws-sigv4"), aws({ regions: [] })],
  ["routes.rules.0.keys", plugin("aws-sigv4"), aws({ keys: [] })],
  ["limits.0.hosts", plugin("budgets"), { limits: [{ ...limit, hosts: [] }] }],
  ["limits.0.models", plugin("budgets"), { limits: [{ ...limit, models: [] }] }],
  ["repositories", secretConfig, { ...source, repositories: [] }],
  ["permissions", secretConfig, { ...source, permissions: {} }],
  ["scopes", secretConfig, { ...clientOf, scopes: [] }],
  ["servers.0.rules.0.callers", plugin("tool-policy"), servers({ ...toolRule, callers: {} })],
  ["servers.0.rules.0.arguments", plugin("tool-policy"), servers({ ...toolRule, arguments: {} })],
  [
    "disallowed_headers.patterns",
    plugin("ext-authz"),
    { ...grpc, disallowed_headers: { patterns: [] } },
  ],
  [
    "default",
    plugin("dlp"),
    { default: { action: "refuse", detectors: [], response_detectors: [] } },
  ],
  ["rules.0.tools.0", plugin("prompt-guard"), { rules: [{ name: "a", tools: [""] }] }],
  [
    "reflect_tools.0",
    plugin("sparc"),
    { reflector_endpoint: "http://r.test", reflect_tools: [""] },
  ],
  ["deny.0.callers.0", allowlistSchema, { deny: [{ host: "a.test", callers: [""] }] }],
])("what would narrow and names nothing is refused: %s", (path, one, value) => {
  const issues = one.safeParse(value).error?.issues ?? [];
  expect(issues.map((issue) => issue.path.join("."))).toContain(path);
});

/** The keys of the schema itself that are guarded. */
function guardedOf(schema: z.ZodType): ReadonlySet<string> {
  const rows = guardedRows.filter(([one]) => one === schema);
  const own = rows.flatMap(([, value]) => emptyPaths(value));
  return new Set(own.filter((path) => !path.includes(".")));
}
