/** Optional keys that are written without a value are the same as keys that are not written. */
import { expect, test } from "vitest";
import { z } from "zod";
import { guarded, withoutEmpty } from "../../../src/yaml/empty-values.ts";
import { configSchema } from "../../../src/config/schema.ts";
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

/** Keys whose absence lifts a check, or opens a way that has none. */
const guardedKeys = [
  "algorithms",
  "backchannel_logout",
  "identity_headers",
  "placeholder_mode",
  "actor_token_file",
  "callers",
  "allow",
  "network_policies",
  "policy_file",
  "allowed_hosts",
  "token_type",
  "required_scopes",
  "required_claims",
  "introspection",
  "dpop",
  "hosts",
  "places",
  "cors",
  "protected_resource",
];

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
  expect(left.filter((key) => !guardedKeys.includes(key))).toEqual([]);
});

const plugin = (name: string): z.ZodType => {
  const found = builtinPlugins.find((one) => one.name === name);
  return found?.config ?? z.never();
};

test.each<[schema: z.ZodType, value: object]>([
  [configSchema, { pipeline: { inbound: { default: null }, outbound: { default: "" } } }],
  [configSchema, { egress: { private_networks: null } }],
  [configSchema, { approval: { two_person: null, operators: null } }],
  [configSchema, { tls_bridge: { min_version: null } }],
  [configSchema, { audit: { signing_key_file: "" } }],
  [configSchema, { kill_switch: { file: "" } }],
  [configSchema, { mtls: { allowed_spiffe_ids: null, outbound_hosts: null } }],
  [configSchema, { mtls: { allowed_upstream_spiffe_ids: null } }],
  [plugin("token-exchange"), { routes: { rules: [{ dpop: null, places: null }] } }],
  [plugin("static-inject"), { places: [{ hosts: null, paths: null }] }],
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
])("what lifts a check where it is left out stays, so that it is refused: %#", (one, value) => {
  expect(withoutEmpty(one, value)).toEqual(value);
  const paths = (one.safeParse(value).error?.issues ?? []).map(({ path }) => path.join("."));
  expect(paths.filter((path) => emptyPaths(value).includes(path))).toEqual(emptyPaths(value));
});

/** The places of values that are none. */
function emptyPaths(value: unknown): string[] {
  if (value === null || value === "") return [""];
  if (typeof value !== "object") return [];
  return Object.entries(value).flatMap(([key, member]) =>
    emptyPaths(member).map((rest) => (rest === "" ? key : `${key}.${rest}`)),
  );
}
