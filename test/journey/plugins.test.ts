/** Which chains are accepted: names, configuration, what must stand before what. */
import { beforeAll, describe, expect, test } from "vitest";
import { runWith, type Settings } from "../support/program.ts";
import { merge, outbound, settings } from "../support/proxy.ts";

const recording = { file: "records" };

/** What `check` says about an outbound chain. */
async function verdict(
  ...plugins: unknown[]
): Promise<{ readonly code: number | null; readonly stderr: string }> {
  return runWith("check", settings(outbound(...plugins)));
}

describe("names and configuration", () => {
  test("B1: an unknown plugin is refused, with the names of those that exist", async () => {
    const { code, stderr } = await verdict("nope");
    expect(code).toBe(2);
    expect(stderr).toContain('unknown plugin "nope"');
    for (const name of ["jwt-validation", "token-exchange", "static-inject", "recorder"]) {
      expect(stderr).toContain(name);
    }
  });

  test("an unknown plugin is told with the nearest one, and none that is not in this version", async () => {
    const config = merge(settings(outbound("egres-policy")), {
      pipeline: { inbound: { plugins: [{ name: "jwtValidation" }, { name: "cpexx" }] } },
    });
    const { code, stderr } = await runWith("check", config);
    expect(code).toBe(2);
    expect(stderr).toMatch(
      /plugins\[0\]\.name: unknown plugin "egres-policy" .*\(did you mean egress-policy\?\)/,
    );
    expect(stderr).toMatch(/unknown plugin "jwtValidation" .*\(did you mean jwt-validation\?\)/);
    expect(stderr).toMatch(/unknown plugin "cpexx" \(registered: \[[^\]]*\]\)\n/);
    expect(stderr).not.toMatch(/\bcpex\b|lineage/);
  });

  test("B2: configuration for a plugin that takes none is refused", async () => {
    const { code, stderr } = await verdict({ name: "plain", config: { a: 1 } });
    expect(code).toBe(2);
    expect(stderr).toContain('plugin "plain" does not accept configuration');
  });

  test("B3: a bad plugin configuration is refused with its place in the file", async () => {
    const { code, stderr } = await verdict({ name: "recorder", config: { file: 7 } });
    expect(code).toBe(2);
    expect(stderr).toMatch(/proxy\.yaml:\d+:\d+ pipeline\.outbound\.plugins\[0\]\.config\.file/);
  });

  test("B3: an unknown key of a plugin configuration is refused", async () => {
    const { code, stderr } = await verdict({ name: "recorder", config: { file: "x", fil: 1 } });
    expect(code).toBe(2);
    expect(stderr).toMatch(/plugins\[0\]\.config\.fil: unknown key \(did you mean file\?\)/);
  });

  test("an entry that is off is neither configured nor required to be right", async () => {
    const { code, stderr } = await verdict({
      name: "recorder",
      on_error: "off",
      config: recording,
    });
    expect(code, stderr).toBe(0);
  });
});

describe("relationships", () => {
  test("B4: a required plugin may stand earlier", async () => {
    expect((await verdict("plain", "needs-plain")).code).toBe(0);
  });

  test("B4: a required plugin that is missing is named", async () => {
    const { code, stderr } = await verdict("needs-plain");
    expect(code).toBe(2);
    expect(stderr).toMatch(/needs-plain.*requires.*plain.*not configured/);
  });

  test("B4: a required plugin that stands later is named with both positions", async () => {
    const { code, stderr } = await verdict("needs-plain", "plain");
    expect(code).toBe(2);
    expect(stderr).toMatch(/needs-plain.*plain/);
    expect(stderr).toMatch(/\b1\b.*\b2\b|\b2\b.*\b1\b|\b0\b.*\b1\b/);
  });

  test("B5: one of several is enough, wherever it stands before", async () => {
    expect((await verdict({ name: "recorder", config: recording }, "needs-some")).code).toBe(0);
  });

  test("B5: none of several is refused", async () => {
    const { code, stderr } = await verdict("needs-some");
    expect(code).toBe(2);
    expect(stderr).toMatch(/at least one.*none are configured/);
  });

  test("B5: only a later one is refused", async () => {
    const { code, stderr } = await verdict("needs-some", "plain");
    expect(code).toBe(2);
    expect(stderr).toContain("must appear earlier");
  });

  test("B6: all violations are in one answer", async () => {
    const { code, stderr } = await verdict("needs-plain", "needs-some");
    expect(code).toBe(2);
    expect(stderr).toMatch(/needs-plain.*requires/);
    expect(stderr).toMatch(/needs-some/);
  });

  test("B6: violations of both directions are in one answer", async () => {
    const config: Settings = merge(
      settings({ listener: { reverse_proxy_backend: "http://127.0.0.1:9" } }),
      {
        pipeline: { inbound: { plugins: ["needs-plain"] }, outbound: { plugins: ["needs-some"] } },
      },
    );
    const { code, stderr } = await runWith("check", config);
    expect(code).toBe(2);
    expect(stderr).toContain("pipeline.inbound.plugins[0]");
    expect(stderr).toContain("pipeline.outbound.plugins[0]");
  });

  test("B7: a body reader before the body writer is fine", async () => {
    const chain = [
      { name: "request-body-reader", config: recording },
      { name: "request-body-writer", config: { body: "x" } },
    ];
    expect((await verdict(...chain)).code).toBe(0);
  });

  test("B7: a body reader after the body writer is refused", async () => {
    const { code, stderr } = await verdict(
      { name: "request-body-writer", config: { body: "x" } },
      { name: "request-body-reader", config: recording },
    );
    expect(code).toBe(2);
    expect(stderr).toContain("request-body-reader");
    expect(stderr).toContain("request-body-writer");
  });

  test("B7: two body writers in one chain are refused", async () => {
    const { code } = await verdict(
      { name: "request-body-writer", config: { body: "x" } },
      { name: "request-body-writer", id: "again", config: { body: "y" } },
    );
    expect(code).toBe(2);
  });
});

describe("plugin modules", () => {
  const bad = (name: string, text: string, over: Settings = {}) =>
    runWith("check", settings({ ...over, plugin_modules: [`./${name}`] }), {
      files: { [name]: text },
    });

  test("a module that exports no plugins is refused by its path", async () => {
    const { code, stderr } = await bad("empty.mjs", "export const other = 1;\n");
    expect(code).toBe(2);
    expect(stderr).toContain("empty.mjs");
  });

  test("a module that does not load is refused by its path", async () => {
    const { code, stderr } = await bad("broken.mjs", "this is not javascript\n");
    expect(code).toBe(2);
    expect(stderr).toContain("broken.mjs");
  });

  test("a module that takes the name of a built-in plugin is refused", async () => {
    const { code, stderr } = await bad(
      "clash.mjs",
      "export const plugins = [{ name: 'jwt-validation', description: 'x', create: () => ({}) }];\n",
    );
    expect(code).toBe(2);
    expect(stderr).toContain("jwt-validation");
  });
});

describe("configuration of the built-in plugins", () => {
  const jwt = (config: Settings) => ({ name: "jwt-validation", config });
  const issuer = "http://idp.test";
  const exchange = (config: Settings) => ({
    name: "token-exchange",
    config: {
      token_url: "http://idp.test/token",
      identity: { type: "client-secret", client_id: "a", client_secret: "b" },
      ...config,
    },
  });
  const inject = (config: Settings) => ({ name: "static-inject", config });
  const mappings = { a: "b" };

  /** Each a chain of one entry with a mistake, and the place that the answer must name. */
  const mistakes: readonly (readonly [id: string, entry: Settings, place: RegExp])[] = [
    ["D19: no issuer", jwt({}), /issuer/],
    ["D19: an unknown field", jwt({ issuer, issuerr: 1 }), /issuerr: unknown key/],
    ["D4: the empty bypass pattern", jwt({ issuer, bypass_paths: [""] }), /bypass_paths/],
    ["D4: a blank bypass pattern", jwt({ issuer, bypass_paths: ["  "] }), /bypass_paths/],
    ["D4: the bypass pattern *", jwt({ issuer, bypass_paths: ["*"] }), /bypass_paths/],
    ["D4: the bypass pattern /*", jwt({ issuer, bypass_paths: ["/*"] }), /bypass_paths/],
    [
      "D4: the bypass pattern [invalid",
      jwt({ issuer, bypass_paths: ["[invalid"] }),
      /bypass_paths/,
    ],
    ["D19: an unknown audience mode", jwt({ issuer, audience_mode: "x" }), /audience_mode/],
    ["an HMAC algorithm", jwt({ issuer, algorithms: ["HS256"] }), /algorithms/],
    [
      "F6: a placeholder_ttl that is none",
      jwt({ issuer, placeholder_ttl: "soon" }),
      /placeholder_ttl/,
    ],
    [
      "E17: no token_url and no provider",
      exchange({ token_url: undefined }),
      /token_url is required/,
    ],
    ["E21: an unknown provider", exchange({ provider: "okta" }), /provider/],
    ["E21: an unknown default policy", exchange({ default_policy: "x" }), /default_policy/],
    ["E21: an unknown no-token policy", exchange({ no_token_policy: "x" }), /no_token_policy/],
    [
      "E21: an unknown assertion type",
      exchange({ identity: { type: "spiffe", jwt_audience: "a", assertion_type: "x" } }),
      /assertion_type/,
    ],
    ["E22: no identity", exchange({ identity: undefined }), /identity/],
    ["E22: no identity type", exchange({ identity: { client_id: "a" } }), /identity\.type/],
    ["E22: an unknown identity type", exchange({ identity: { type: "x" } }), /identity\.type/],
    [
      "E26: spiffe without a source",
      exchange({ identity: { type: "spiffe", client_id: "a" } }),
      /jwt_audience|jwt_svid_file/,
    ],
    [
      "E30: a host that is no pattern",
      exchange({ routes: { rules: [{ host: "[invalid" }] } }),
      /routes\.rules\[0\]\.host|invalid/,
    ],
    ["an unknown action", exchange({ routes: { rules: [{ host: "a", action: "x" }] } }), /action/],
    ["O7: no source", inject({}), /source/],
    ["O7: an unknown source", inject({ source: "vault" }), /source/],
    ["O7: secret_dir without a directory", inject({ source: "secret_dir" }), /secret_dir/],
    ["O7: mappings without mappings", inject({ source: "mappings" }), /mappings/],
    ["O7: an unknown key_by", inject({ source: "mappings", mappings, key_by: "x" }), /key_by/],
    [
      "O7: static without its key",
      inject({ source: "mappings", mappings, key_by: "static" }),
      /\bkey\b/,
    ],
    [
      "O7: a header that is no token",
      inject({ source: "mappings", mappings, inject_header: "a b" }),
      /inject_header/,
    ],
    [
      "O7: an unknown field",
      inject({ source: "mappings", mappings, surprise: 1 }),
      /surprise: unknown key/,
    ],
  ];

  let answer: { readonly code: number | null; readonly stderr: string };
  beforeAll(async () => {
    answer = await verdict(...mistakes.map(([, entry]) => entry));
  });

  test("are all reported in one answer", () => {
    expect(answer.code, answer.stderr).toBe(2);
  });

  test.each(mistakes.map(([id, , place], at) => [id, at, place] as const))(
    "%s is refused by name",
    (_id, at, place) => {
      const lines = answer.stderr
        .split("\n")
        .filter((line) => line.includes(`pipeline.outbound.plugins[${at}]`));
      expect(lines.join("\n"), answer.stderr).toMatch(place);
      expect(lines[0]).toMatch(/proxy\.yaml:\d+:\d+ /);
    },
  );

  test("a routes file that is no list is refused with its own place", async () => {
    const file = { files: { "routes.yaml": "rules:\n- {host: a}\n" } };
    const config = settings(outbound(exchange({ routes: { file: "./routes.yaml" } })));
    const { code, stderr } = await runWith("check", config, file);
    expect(code, stderr).toBe(2);
    expect(stderr).toContain("routes.yaml");
  });
});
