import { describe, expect, test } from "vitest";
import { z } from "zod";
import { describePipeline, describePlugin, type FieldView } from "../../../src/admin/catalogue.ts";

const definition = { name: "p", description: "does p" };

function fieldsOf(schema: z.ZodType): Map<string, FieldView> {
  const view = describePlugin(definition, z.toJSONSchema(schema, { io: "input" }));
  return new Map(view.fields.map((field) => [field.name, field]));
}

describe("M8: the view of a chain", () => {
  test("numbers positions from one, shows capabilities and hides secrets", () => {
    const parser = { ...definition, name: "mcp-parser", body: { request: "read" } } as const;
    const policy = { ...definition, name: "tool-policy", requires: ["mcp-parser"] };
    const view = describePipeline("outbound", [
      { definition: parser, onError: "enforce" },
      { definition: policy, onError: "observe", config: { api_key: "x", mode: "m" } },
    ]);
    expect(view).toEqual([
      {
        name: "mcp-parser",
        direction: "outbound",
        position: 1,
        readsBody: true,
        requires: [],
        requiresAny: [],
        description: "does p",
        onError: "enforce",
      },
      {
        name: "tool-policy",
        direction: "outbound",
        position: 2,
        readsBody: false,
        requires: ["mcp-parser"],
        requiresAny: [],
        description: "does p",
        onError: "observe",
        config: { api_key: "[REDACTED]", mode: "m" },
      },
    ]);
  });
});

describe("M9: the fields of a plugin", () => {
  test("have a type, a description, a text default and whether they are required", () => {
    const fields = fieldsOf(
      z.strictObject({
        issuer: z.string().describe("who signs"),
        leeway: z.number().int().default(30),
        strict: z.boolean().optional(),
        paths: z.array(z.string()).default(["/mcp"]),
        mode: z.enum(["static", "per-host"]).default("static"),
      }),
    );
    expect(fields.get("issuer")).toEqual({
      name: "issuer",
      type: "string",
      required: true,
      description: "who signs",
    });
    expect(fields.get("leeway")).toMatchObject({ type: "int", default: "30", required: false });
    expect(fields.get("strict")).toMatchObject({ type: "bool", required: false });
    expect(fields.get("paths")).toMatchObject({ type: "[]string", default: '["/mcp"]' });
    expect(fields.get("mode")).toMatchObject({
      type: "string",
      default: "static",
      enum: ["static", "per-host"],
    });
  });

  test("of an object carry its own fields; lists of objects and free maps are unknown", () => {
    const fields = fieldsOf(
      z.strictObject({
        identity: z.strictObject({ type: z.literal("spiffe"), id: z.string() }),
        rules: z.array(z.strictObject({ host: z.string() })),
        mappings: z.record(z.string(), z.string()),
      }),
    );
    expect(fields.get("identity")?.fields?.map((field) => field.name)).toEqual(["type", "id"]);
    expect(fields.get("identity")?.fields?.[0]?.enum).toEqual(["spiffe"]);
    expect(fields.get("rules")?.type).toBe("unknown");
    expect(fields.get("mappings")?.type).toBe("unknown");
  });

  test("of alternatives are what the alternatives have in common", () => {
    const fields = fieldsOf(
      z.strictObject({
        nullable: z.string().nullable(),
        mixed: z.union([z.string(), z.number()]),
        words: z.union([z.literal("a"), z.literal("b")]),
      }),
    );
    expect(fields.get("nullable")?.type).toBe("string");
    expect(fields.get("mixed")?.type).toBe("unknown");
    expect(fields.get("words")).toMatchObject({ type: "string", enum: ["a", "b"] });
  });

  test("of a plugin without configuration, or of a schema that refers to itself, end", () => {
    expect(describePlugin(definition).fields).toEqual([]);
    const loop = {
      $ref: "#/$defs/a",
      $defs: { a: { properties: { self: { $ref: "#/$defs/a" } } } },
    };
    expect(() => describePlugin(definition, loop)).not.toThrow();
    const turning = { anyOf: [{ $ref: "#" }] };
    expect(() => describePlugin(definition, { properties: { x: turning } })).not.toThrow();
  });
});
