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
