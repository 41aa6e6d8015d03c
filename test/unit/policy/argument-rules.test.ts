/** Rules of MCP endpoints over the arguments of a tool. */
import { describe, expect, test } from "vitest";
import { readPolicyDocument } from "../../../src/policy/file/document.ts";
import { evaluateRequest } from "../../../src/policy/evaluate.ts";
import { PolicyRules } from "../../../src/policy/rules.ts";

const city = {
  type: "object",
  properties: { city: { enum: ["Oslo"] } },
  required: ["city"],
  additionalProperties: false,
};

function read(rules: object[], denyRules?: object[]): ReturnType<typeof readPolicyDocument> {
  const endpoint = {
    host: "mcp.test",
    port: 443,
    protocol: "mcp",
    enforcement: "enforce",
    rules: rules.map((allow) => ({ allow })),
    ...(denyRules === undefined ? {} : { deny_rules: denyRules }),
  };
  return readPolicyDocument({
    value: { version: 1, network_policies: { tools: { endpoints: [endpoint] } } },
  });
}

function effectOf(rules: object[], args: unknown, denyRules?: object[]): string {
  const { document, problems } = read(rules, denyRules);
  if (document === undefined) throw new Error(JSON.stringify(problems));
  return evaluateRequest(new PolicyRules(document, { emptyBinaries: "any" }), {
    host: "mcp.test",
    port: 443,
    method: "POST",
    path: "/mcp",
    query: new Map(),
    rpc: { calls: [{ method: "tools/call", tool: "weather", args }] },
  }).effect;
}

const weather = { method: "tools/call", tool: "weather", schema: city };

describe("a schema beside a tool", () => {
  test("lets the arguments through that match, and no others", () => {
    expect(effectOf([weather], { city: "Oslo" })).toBe("allow");
    expect(effectOf([weather], { city: "Rome" })).toBe("deny");
    expect(effectOf([weather], { city: "Oslo", units: "si" })).toBe("deny");
    expect(effectOf([weather], {})).toBe("deny");
  });

  test("of a deny rule refuses what matches", () => {
    const all = { method: "tools/call", tool: "weather" };
    expect(effectOf([all], { city: "Oslo" }, [weather])).toBe("deny");
    expect(effectOf([all], { city: "Rome" }, [weather])).toBe("allow");
  });

  test("is on the safe side with arguments that servers read in two ways", () => {
    const all = { method: "tools/call", tool: "weather" };
    expect(effectOf([weather], undefined)).toBe("deny");
    expect(effectOf([all], undefined, [weather])).toBe("deny");
  });

  test("is on the safe side with a text that is too long for its pattern", () => {
    const all = { method: "tools/call", tool: "weather" };
    const patterned = {
      ...all,
      schema: { properties: { city: { type: "string", pattern: "O" } } },
    };
    const args = { city: "a".repeat(65_537) };
    expect(effectOf([patterned], args)).toBe("deny");
    expect(effectOf([all], args, [patterned])).toBe("deny");
  });

  test.each([
    [{ method: "tools/list", schema: city }, "name it"],
    [{ method: "tools/call", tool: "weather", schema: { type: "no" } }, "no usable JSON Schema"],
    [{ method: "tools/call", tool: "weather", schema: { properties: { a: { oneof: [] } } } }, "no"],
  ])("that cannot be judged is a problem of the file: %j", (rule, words) => {
    const { document, problems } = read([rule]);
    expect(document).toBeUndefined();
    expect(JSON.stringify(problems)).toContain(words);
  });
});
