/** The published schema of policy files says what the schema says that judges them. */
import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { readPolicyDocument } from "../../../../src/policy/file/document.ts";
import vectors from "../../../golden/policy/vectors.json" with { type: "json" };

const published = JSON.parse(
  readFileSync(new URL("../../../../config/policy.schema.json", import.meta.url), "utf8"),
) as Record<string, unknown>;
const ajv = new Ajv2020({ strict: false });
const isPublished = ajv.compile(published);

const policies = Object.entries(vectors.policies as Readonly<Record<string, unknown>>);

test.each(policies)("the policy %s of the vectors is one in an editor as well", (_name, value) => {
  expect(
    isPublished({ version: 1, network_policies: value }),
    ajv.errorsText(isPublished.errors),
  ).toBe(true);
});

const endpoint = { host: "a.example.com", port: 443 };
const judged = { ...endpoint, protocol: "rest" };

test.each([
  [{ hots: "a" }, "hots"],
  [{ ...endpoint, port: 70_000 }, "port"],
  [{ ...endpoint, ports: ["443"] }, "ports[0]"],
  [{ ...endpoint, protocol: "sql" }, "protocol"],
  [{ ...endpoint, credential_signing: "sigv4" }, "credential_signing"],
  [{ ...endpoint, websocket_credential_rewrite: true }, "websocket_credential_rewrite"],
  [{ ...judged, rules: [] }, "rules"],
  [{ ...judged, rules: [{ allow: { method: "GET", path: 1 } }] }, "rules[0].allow.path"],
  [{ ...judged, rules: [{ allow: { path: "/", query: { a: { any: [] } } } }] }, "query.a.any"],
  [{ ...judged, mcp: { max_body_bytes: 0 } }, "mcp.max_body_bytes"],
])("%j is refused in an editor and by the proxy, at %s", (one, key) => {
  const value = { network_policies: { e: { endpoints: [one] } } };
  expect(isPublished(value)).toBe(false);
  const { document, problems } = readPolicyDocument({ value });
  expect(document).toBeUndefined();
  expect(problems.map(({ path }) => path)).toContainEqual(
    expect.stringMatching(new RegExp(`\\.${key.replaceAll(/[[\].]/g, String.raw`\$&`)}$`)),
  );
});

test("every key has a description", () => {
  const silent: string[] = [];
  const walk = (node: unknown, path: string): void => {
    if (typeof node !== "object" || node === null) return;
    const { properties, ...rest } = node as Readonly<Record<string, unknown>>;
    for (const [key, member] of Object.entries((properties ?? {}) as Record<string, object>)) {
      if (!("description" in member)) silent.push(`${path}.${key}`);
      walk(member, `${path}.${key}`);
    }
    for (const [key, member] of Object.entries(rest)) walk(member, `${path}.${key}`);
  };
  walk(published, "");
  expect(published["properties"]).toHaveProperty("network_policies");
  expect(silent).toEqual([]);
});

test("the policy file of docs/policy.md names its schema and is one", () => {
  const page = readFileSync(new URL("../../../../docs/policy.md", import.meta.url), "utf8");
  const [, text = ""] = /```yaml\n(# yaml-language-server: \$schema=[^]*?)```/.exec(page) ?? [];
  expect(isPublished(parse(text)), ajv.errorsText(isPublished.errors)).toBe(true);
  expect(readPolicyDocument({ value: parse(text) as unknown }).problems).toEqual([]);
});
