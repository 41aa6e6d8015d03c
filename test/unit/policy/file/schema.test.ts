/** The published schema of policy files says what the schema says that judges them. */
import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { printSchema } from "../../../../src/cli/schema.ts";
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

test("the schema of the file says the same of entries and lists in the settings of the plugin", () => {
  const { $defs } = JSON.parse(printSchema()) as { $defs: { pluginEntry: { allOf: Rule[] } } };
  const rule = $defs.pluginEntry.allOf.find(
    ({ if: of }) => of.properties.name.const === "egress-policy",
  );
  const settings = rule?.then.properties.config.anyOf[0]?.properties;
  const { properties } = published as { properties: { network_policies: Entries } };
  const inline = settings?.["network_policies"] as Entries | undefined;
  expect(inline?.additionalProperties).toEqual(properties.network_policies.additionalProperties);
  const isList = ajv.compile({ anyOf: [settings?.["allow"] ?? false] });
  expect(isList(["a.example.com:443", { host: "a.example.com", paths: ["/v1/**"] }])).toBe(true);
  expect(isList([{ host: "a.example.com", path: ["/v1/**"] }])).toBe(false);
});

interface Entries {
  readonly additionalProperties: object;
}

interface Rule {
  readonly if: { readonly properties: { readonly name: { readonly const: string } } };
  readonly then: {
    readonly properties: {
      readonly config: {
        readonly anyOf: readonly { readonly properties?: Record<string, object> }[];
      };
    };
  };
}

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
