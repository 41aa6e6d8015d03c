/** The keys that a schema knows at a place. */
import { expect, test } from "vitest";
import { z } from "zod";
import { schemaKeys } from "../../../src/yaml/schema-keys.ts";

const inner = z.strictObject({ x: z.number(), y: z.string() });
const schema = z
  .strictObject({
    plain: inner,
    wrapped: inner.optional().default({ x: 1, y: "" }),
    many: z.array(inner),
    named: z.record(z.string(), inner),
    either: z.union([inner, z.strictObject({ z: z.number() })]),
    piped: inner.transform((value) => value.x),
    text: z.string(),
  })
  .refine(() => true);

test.each<[path: readonly PropertyKey[], keys: readonly string[]]>([
  [[], ["plain", "wrapped", "many", "named", "either", "piped", "text"]],
  [["plain"], ["x", "y"]],
  [["wrapped"], ["x", "y"]],
  [
    ["many", 3],
    ["x", "y"],
  ],
  [
    ["named", "any"],
    ["x", "y"],
  ],
  [["either"], ["x", "y", "z"]],
  [["piped"], ["x", "y"]],
  [["text"], []],
  [["absent"], []],
  [["text", "deeper"], []],
])("%j", (path, keys) => {
  expect(schemaKeys(schema, path)).toEqual(keys);
});
