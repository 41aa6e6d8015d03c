import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Decision, Plugin, RequestContext } from "../../../../src/pipeline/plugin.ts";
import { staticInject } from "../../../../src/plugins/static-inject/plugin.ts";
import {
  bearerOf,
  message,
  type MessageShape,
  PluginBench,
  problemsOf,
} from "../../../support/plugin-bench.ts";

let bench: PluginBench;
let folder: string;

beforeEach(() => {
  bench = new PluginBench();
  folder = mkdtempSync(join(tmpdir(), "inject-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const mapped = { source: "mappings", mappings: { "api.example.com": "REAL" } };

function plugin(config: Readonly<Record<string, unknown>> = {}): Plugin {
  return bench.create(staticInject, { ...mapped, ...config });
}

function fromFolder(config: Readonly<Record<string, unknown>> = {}): Plugin {
  return bench.create(staticInject, { source: "secret_dir", secret_dir: folder, ...config });
}

async function judge(subject: Plugin, context: RequestContext): Promise<Decision> {
  const decision = await subject.onCredential?.(context);
  if (decision === undefined) throw new Error("not asked");
  return decision;
}

function outbound(shape: MessageShape = {}): RequestContext {
  return message({
    scheme: "https",
    to: "api.example.com:443",
    headers: bearerOf("stand-in"),
    ...shape,
  });
}

const fieldsOf = (context: RequestContext): [string, string][] =>
  [...context.headers.entries()].map(([name, value]) => [name.toLowerCase(), value]);

describe("a credential", () => {
  test("O1 takes the place of the stand-in", async () => {
    const context = outbound();
    expect(await judge(plugin(), context)).toEqual({
      action: "modify",
      reason: "credential_injected",
      details: { key: "api.example.com", header: "Authorization" },
    });
    expect(fieldsOf(context)).toEqual([["authorization", "Bearer REAL"]]);
  });

  test("O2 Z6 F2 goes bare into another field, and Authorization is gone", async () => {
    const context = outbound();
    await judge(plugin({ inject_header: "x-api-key" }), context);
    expect(fieldsOf(context)).toEqual([["x-api-key", "REAL"]]);
  });

  test("CRED-11 replaces every spelling of the client's own field", async () => {
    const own = { "X-Api-Key": "mine", x_api_key: "mine", "X.Api.Key": ["mine", "mine"] };
    const context = outbound({ headers: { ...bearerOf("stand-in"), ...own } });
    await judge(plugin({ inject_header: "x-api-key" }), context);
    expect(fieldsOf(context)).toEqual([["x-api-key", "REAL"]]);
  });

  test("O6 of a static key goes to any destination, or to those that the file lists", async () => {
    const config = { mappings: { X: "VALUE" }, key_by: "static", key: "X" };
    const anywhere = outbound({ to: "other.example.org:443" });
    await judge(plugin(config), anywhere);
    expect(fieldsOf(anywhere)).toEqual([["authorization", "Bearer VALUE"]]);
    expect(bench.logged.join()).toContain("every destination");
    const elsewhere = outbound({ to: "other.example.org:443" });
    expect(await judge(plugin({ ...config, hosts: ["*.example.com"] }), elsewhere)).toMatchObject({
      action: "skip",
    });
    expect(fieldsOf(elsewhere)).toEqual([["authorization", "Bearer stand-in"]]);
  });

  test.each([
    ["with a port", { "api.example.com:8443": "PORT", "api.example.com": "HOST" }, "PORT"],
    ["without one", { "API.example.com": "HOST" }, "HOST"],
  ])("is found under the destination %s", async (_what, mappings, value) => {
    const context = outbound({ to: "api.example.com:8443" });
    await judge(plugin({ mappings }), context);
    expect(context.headers.get("authorization")).toBe(`Bearer ${value}`);
  });

  test("CRED-01 is not for a destination that only says so in its Host field", async () => {
    const context = outbound({ to: "evil.example.com:443", host: "api.example.com" });
    expect(await judge(plugin(), context)).toHaveProperty("reason", "unresolved_key");
  });
});

describe("a credential in a URL", () => {
  test.each([
    ["/bot/p", "12:A-b_c", "/bot/12:A-b_c"],
    ["/botp/x", "12:A/b", "/bot12:A%2Fb/x"],
    ["/x?key=p&key=q", "a b&c=d", "/x?key=a%20b%26c%3Dd&key=q"],
    ["/p?key=p", "k?#", "/k%3F%23?key=k%3F%23"],
  ])("%s with %s is sent as %s, and recorded as it came", async (path, value, sent) => {
    const context = outbound({ headers: {}, path });
    const config = { mappings: { "api.example.com": value }, placeholder: "p" };
    expect(await judge(plugin(config), context)).toHaveProperty("action", "modify");
    expect(context.sentPath).toBe(sent);
    expect(context.path).toBe(path);
  });
});

describe("named places", () => {
  const config = {
    placeholder: "p",
    places: [
      { header: "x-key", hosts: ["*.example.com"] },
      { query: "k", paths: ["/v1/**"] },
      { json: "/a/0", paths: ["/v1/**"] },
      { header: "other", hosts: ["else.test"] },
    ],
  };

  test.each([
    ["/v1/x", "header x-key, query k, json /a/0"],
    ["/v2", "header x-key"],
    ["/v1/../v1/x", "header x-key"],
    ["/v1//x", "header x-key"],
    ["/%76%31/x", "header x-key"],
  ])("of %s are said to be %s", async (path, places) => {
    const said = await plugin(config).describeCredential?.(outbound({ headers: {}, path }));
    expect(said).toContain(`that the client has to send in: ${places}`);
    expect(typeof said === "string" && said.endsWith(places)).toBe(true);
  });

  test("that are none here are told to be missing", async () => {
    const places = [{ query: "k", paths: ["/v1/**"] }];
    const said = await plugin({ ...config, places }).describeCredential?.(
      outbound({ headers: {}, path: "/" }),
    );
    expect(said).toMatchObject({
      action: "deny",
      denial: { message: "no placeholder in: any place (see places)" },
    });
    const context = outbound({ headers: {}, path: "/v1/x" });
    expect(await judge(plugin(config), context)).toMatchObject({
      denial: { message: "no placeholder in: header x-key, query k, json /a/0" },
    });
  });

  test("a body is read where a place is in it, and nowhere else", () => {
    const subject = plugin(config);
    const json = { "content-type": "application/vnd.x+json; charset=utf-8" };
    const wants = (shape: MessageShape): boolean | undefined =>
      subject.wantsBody?.(outbound({ body: "{}", ...shape }));
    expect(subject.body).toEqual({ request: "read" });
    expect(wants({ headers: json, path: "/v1/x" })).toBe(true);
    expect(wants({ headers: json, path: "/v2" })).toBe(false);
    expect(wants({ headers: { "content-type": "text/plain" }, path: "/v1/x" })).toBe(false);
    expect(plugin().body).toEqual({});
  });

  test("the body that was judged stays what the client sent", async () => {
    const body = '{"a":["p"],"n":1e999}';
    const headers = { "content-type": "application/json" };
    const context = outbound({ body, headers, path: "/v1/x" });
    expect(await judge(plugin(config), context)).toMatchObject({
      details: { header: "json /a/0" },
    });
    expect(context.body?.toString()).toBe(body);
    expect(context.sentBody?.toString()).toBe('{"a":["REAL"],"n":1e999}');
    expect(context.content.replaced).toBe(false);
  });
});

describe("a directory of secrets", () => {
  test("CRED-10 is read at every request", async () => {
    const subject = fromFolder();
    for (const value of ["one", "two"]) {
      writeFileSync(join(folder, "api.example.com"), `${value}\n`);
      const context = outbound();
      await judge(subject, context);
      expect(context.headers.get("authorization")).toBe(`Bearer ${value}`);
    }
  });

  test("may hold the links of a Kubernetes volume", async () => {
    mkdirSync(join(folder, "..2026"));
    writeFileSync(join(folder, "..2026", "api.example.com"), "linked");
    symlinkSync("..2026", join(folder, "..data"));
    symlinkSync("..data/api.example.com", join(folder, "api.example.com"));
    const context = outbound();
    await judge(fromFolder(), context);
    expect(context.headers.get("authorization")).toBe("Bearer linked");
  });

  test("gives nothing from outside itself", async () => {
    const outside = mkdtempSync(join(tmpdir(), "outside-"));
    writeFileSync(join(outside, "secret"), "OUTSIDE");
    symlinkSync(join(outside, "secret"), join(folder, "api.example.com"));
    expect(await judge(fromFolder(), outbound())).toHaveProperty("reason", "unresolved_key");
    rmSync(outside, { recursive: true });
  });

  test("gives nothing from a folder or a file without bounds", async () => {
    mkdirSync(join(folder, "api.example.com"));
    expect(await judge(fromFolder(), outbound())).toHaveProperty("reason", "unresolved_key");
    rmSync(join(folder, "api.example.com"), { recursive: true });
    writeFileSync(join(folder, "api.example.com"), "x".repeat(20_000));
    expect(await judge(fromFolder(), outbound())).toHaveProperty("reason", "unresolved_key");
  });
});

describe("a refusal", () => {
  const cases: [string, Readonly<Record<string, unknown>>, MessageShape, string][] = [
    ["O3 no bearer", {}, { headers: {} }, "missing-auth"],
    ["O3 Basic", {}, { headers: { Authorization: "Basic x" } }, "missing-auth"],
    [
      "O3 two credentials",
      {},
      { headers: { Authorization: ["Bearer a", "Bearer b"] } },
      "missing-auth",
    ],
    ["O3 another stand-in", { placeholder: "expected" }, {}, "placeholder-mismatch"],
    [
      "a user with a colon",
      { mappings: { "api.example.com": "a:b" }, placeholder: "p" },
      { headers: { Authorization: `Basic ${Buffer.from("p:").toString("base64")}` } },
      "unsafe-value",
    ],
    [
      "a dot segment",
      { mappings: { "api.example.com": ".." }, placeholder: "p" },
      { headers: {}, path: "/a/p/b" },
      "unsafe-value",
    ],
    ["O3 no key", {}, { to: "other.example.com:443" }, "unresolved-key"],
    ["O4 CR LF", { mappings: { "api.example.com": "a\r\nX-Evil: 1" } }, {}, "unsafe-value"],
    ["O4 NUL", { mappings: { "api.example.com": "a\0b" } }, {}, "unsafe-value"],
    ["O5 nothing", { mappings: { "api.example.com": "" } }, {}, "unsafe-value"],
    ["O5 white space", { mappings: { "api.example.com": " \n" } }, {}, "unsafe-value"],
  ];
  test.each(cases)(
    "%s: 401, recorded, and the request unchanged",
    async (_what, config, shape, code) => {
      const context = outbound(shape);
      const before = fieldsOf(context);
      const decision = await judge(plugin(config), context);
      expect(decision).toMatchObject({
        action: "deny",
        reason: code.replace(/-/g, "_"),
        denial: { code: `static-inject.${code}`, status: 401 },
      });
      expect(JSON.stringify(decision)).not.toMatch(/stand-in|REAL|Evil/);
      expect(fieldsOf(context)).toEqual(before);
    },
  );

  test("O5 a file of white space: 401", async () => {
    writeFileSync(join(folder, "api.example.com"), " \n");
    expect(await judge(fromFolder(), outbound())).toHaveProperty("reason", "unsafe_value");
  });

  test("CRED-03 plain HTTP, where the file forbids it", async () => {
    const context = outbound({ scheme: "http", to: "api.example.com:80" });
    expect(await judge(plugin({ allow_plaintext: false }), context)).toMatchObject({
      denial: { code: "static-inject.plaintext", status: 403 },
    });
  });

  test("CRED-03 plain HTTP is otherwise as in the Go program, with a warning at the start", async () => {
    const context = outbound({ scheme: "http", to: "api.example.com:80" });
    expect(await judge(plugin(), context)).toHaveProperty("action", "modify");
    expect(bench.logged.join()).toContain("allow_plaintext");
  });
});

test.each<[string, Readonly<Record<string, unknown>>, string]>([
  ["no source", {}, "source"],
  ["an unknown source", { source: "vault" }, "source"],
  ["secret_dir without a directory", { source: "secret_dir" }, "secret_dir"],
  ["mappings without entries", { source: "mappings", mappings: {} }, "mappings"],
  ["key_by static without a key", { ...mapped, key_by: "static" }, "key"],
  ["an unknown key_by", { ...mapped, key_by: "path" }, "key_by"],
  [
    "a key that leaves the directory",
    { source: "secret_dir", secret_dir: "/s", key_by: "static", key: "../x" },
    "key",
  ],
  ["a header that is no header", { ...mapped, inject_header: "a b" }, "inject_header"],
  [
    "a header that frames the message",
    { ...mapped, inject_header: "Content-Length" },
    "inject_header",
  ],
  ["an unknown key", { ...mapped, mapings: {} }, "mapings"],
])("O7 %s: refused, naming the field", (_what, config, field) => {
  expect(problemsOf(staticInject, config).join()).toContain(field);
});
