import { expect, test } from "vitest";
import { z } from "zod";
import { buildJsonSchema } from "../../../src/config/json-schema.ts";
import { referenceRows } from "../../../scripts/reference.ts";

test("every key has a description", () => {
  const rows = referenceRows(buildJsonSchema());
  expect(rows.length).toBeGreaterThan(60);
  expect(rows.filter((row) => row.description === "").map((row) => row.path)).toEqual([]);
});

test("a key with a default says it in its description", () => {
  const silent = referenceRows(buildJsonSchema()).filter(
    (row) => row.fallback !== "" && !row.description.includes("efault"),
  );
  expect(silent.map((row) => row.path)).toEqual([]);
});

test("no mapping of the file takes unknown keys", () => {
  const open: string[] = [];
  const walk = (node: unknown, path: string): void => {
    if (typeof node !== "object" || node === null) return;
    const schema: Record<string, unknown> = { ...node };
    if (schema["properties"] !== undefined && schema["additionalProperties"] !== false)
      open.push(path);
    for (const [key, member] of Object.entries(schema)) walk(member, `${path}/${key}`);
  };
  walk(buildJsonSchema(), "");
  expect(open).toEqual([]);
});

test("each plugin checks the settings of its own entries", () => {
  const schema = buildJsonSchema([
    { name: "one", description: "First.", configSchema: z.strictObject({ a: z.int() }) },
    { name: "two", description: "Second." },
  ]);
  const text = JSON.stringify(schema);
  const one =
    '"if":{"type":"object","properties":{"name":{"const":"one"}},"required":["name"]},"then":';
  expect(text).toContain(
    `${one}{"properties":{"config":{"anyOf":[{"type":"object","properties":{"a":`,
  );
  expect(text).toContain(
    '"const":"two"}},"required":["name"]},"then":{"properties":{"config":{"type":"null"}}}',
  );
});
