/** explain, policy test and policy suggest, as an operator runs them. */
import { realpathSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { getThrough } from "../../examples/demo/requests.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type Ended, runProgram } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "policy-cli-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function put(name: string, content: unknown): Promise<string> {
  const path = join(folder, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, typeof content === "string" ? content : stringify(content));
  return path;
}

const policy = {
  api: {
    endpoints: [
      {
        host: "api.example.com",
        port: 443,
        protocol: "rest",
        enforcement: "enforce",
        rules: [{ allow: { method: "GET", path: "/v1/**" } }],
      },
    ],
    binaries: [{ path: "/usr/bin/curl" }],
  },
  inside: { endpoints: [{ host: "inside.example.com", port: 443 }] },
};

const file = {
  listener: { roles: ["forward"] },
  tls_bridge: { mode: "enabled", ca: "ephemeral" },
  egress: {
    private_networks: "deny",
    hosts: {
      "api.example.com": ["93.184.216.34"],
      "inside.example.com": ["10.0.0.7"],
      "rebound.example.com": ["169.254.169.254", "93.184.216.34"],
    },
  },
  pipeline: {
    outbound: {
      default: "deny",
      plugins: [
        {
          name: "egress-policy",
          config: {
            network_policies: policy,
            allow: ["rebound.example.com:443", "127.0.0.1:8081"],
          },
        },
        {
          name: "static-inject",
          config: {
            source: "mappings",
            mappings: { "api.example.com": "k3y" },
            hosts: ["api.example.com"],
          },
        },
      ],
    },
  },
};

async function explain(line: string, config: unknown = file): Promise<Ended> {
  const path = await put("proxy.yaml", config);
  return runProgram(["explain", "--config", path, ...line.split(" ")]);
}

describe("explain", () => {
  test.each(["8080", "8081", "8082", "9091", "9093", "9094"])(
    "the proxy's own listener on port %s is never dialled, wherever loopback is allowed",
    async (port) => {
      const open = {
        listener: { reverse_proxy_backend: "http://127.0.0.1:1" },
        session: { enabled: true },
        egress: { allow_ips: ["127.0.0.0/8"] },
        pipeline: { inbound: { default: "deny" }, outbound: { default: "allow" } },
      };
      const ended = await explain(`--json --connect 127.0.0.1:${port}`, open);
      expect(ended.code).toBe(1);
      expect(JSON.parse(ended.stdout)).toMatchObject({
        verdict: "deny",
        code: "upstream.address-forbidden",
      });
      expect(ended.stdout).toContain("own-listener");
    },
  );

  test.each([
    ["--connect api.example.com:443 --binary /usr/bin/curl", 0, "allowed by egress-policy"],
    [
      "--connect api.example.com:443 --method GET --path /v1/%78;v=1 --binary /usr/bin/curl",
      0,
      "sent as          /v1/%78;v=1",
    ],
    [
      "--connect api.example.com:443 --method GET --path /v1/./x --binary /usr/bin/curl",
      1,
      "the path has a dot segment (allow_ambiguous_path",
    ],
    ["--url https://api.example.com/v1/x --binary /usr/bin/curl", 0, "(static-inject)"],
    [
      "--url https://api.example.com/v1/x --method POST --binary /usr/bin/curl",
      1,
      "POST /v1/x not permitted by policy (policy.forbidden, 403)",
    ],
    ["--connect api.example.com:443 --binary /usr/bin/node", 1, "entry api"],
    ["--connect api.example.com:443", 1, "binary '<unresolved>' not allowed"],
    ["--connect api.example.com:443 --binary /bin/sh --ancestor /usr/bin/curl", 0, "allowed by"],
    ["--connect inside.example.com:443", 1, "refused by address-guard: 10.0.0.7"],
    ["--connect rebound.example.com:443", 0, "169.254.169.254 metadata, refused"],
    ["--connect 127.0.0.1:8081", 1, "the proxy never dials its own listeners"],
    ["--connect evil.test:443", 1, "endpoint"],
  ])("%s exits %i", async (line, code, words) => {
    const ended = await explain(line);
    expect({ code: ended.code, stderr: ended.stderr }).toEqual({ code, stderr: "" });
    expect(ended.stdout).toContain(words);
    expect(ended.stdout).not.toContain("k3y");
  });

  test("--json says plugin, entry, rule, address class and credential", async () => {
    const ended = await explain("--json --url https://api.example.com/v1/x --binary /usr/bin/curl");
    expect(JSON.parse(ended.stdout)).toMatchObject({
      verdict: "allow",
      plugin: "egress-policy",
      entry: "api",
      rule: "endpoints[0].rules[0]",
      tunnel: "bridge",
      addresses: [{ address: "93.184.216.34", class: "public" }],
      credentials: [{ plugin: "static-inject" }],
    });
  });

  test("without a bridge a tunnel whose requests are judged is refused", async () => {
    const unbridged = { ...file, tls_bridge: { mode: "disabled" } };
    const ended = await explain("--connect api.example.com:443 --binary /usr/bin/curl", unbridged);
    expect(ended.code).toBe(1);
    expect(ended.stdout).toContain("the TLS bridge does not open this connection");
  });

  test.each([
    ["--connect", 2],
    ["--connect a:1 --url http://a/", 2],
    ["--connect a:99999", 2],
    ["--url nonsense", 2],
    ["--connect a:1 --colour red", 2],
  ])("%s is bad usage", async (line, code) => {
    const ended = await explain(line);
    expect(ended.code).toBe(code);
    expect(ended.stderr).toContain("authbridge-proxy: ");
    expect(ended.stderr).not.toMatch(/\n\s+at /);
  });

  test("every mistake of an inline policy has its own place", async () => {
    const text = [
      "listener: { roles: [forward] }",
      "pipeline:",
      "  outbound:",
      "    plugins:",
      "      - name: egress-policy",
      "        config:",
      "          allow: ['*.com']",
      "          network_policies:",
      "            a:",
      "              endpoints:",
      "                - { host: x.example.com, prot: 1 }",
      "                - { host: y.example.com, port: 443, protocol: sql }",
    ].join("\n");
    const path = await put("bad.yaml", text);
    const ended = await runProgram(["check", "--config", path]);
    expect(ended.code).toBe(2);
    const lines = ended.stderr.split("\n").map((line) => line.replace(`${path}:`, ""));
    expect(lines).toEqual([
      expect.stringMatching(/^11:\d+ .*unknown key 'prot'; did you mean 'port'/),
      expect.stringMatching(/^11:\d+ .*needs port/),
      expect.stringMatching(/^12:\d+ .*SQL is not inspected/),
      expect.stringMatching(/^7:\d+ .*TLD wildcard/),
    ]);
  });

  test("check warns of rules that do not do what they seem to, as the start does", async () => {
    const endpoints = [{ host: "a.example.com", port: 443, access: "full" }];
    const file = settings(
      outbound({ name: "egress-policy", config: { network_policies: { a: { endpoints } } } }),
    );
    const { code, stderr } = await runProgram(["check", "--config", await put("inert.yaml", file)]);
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /^warning: .*network_policies\.a\b.*without binaries admits any process/m,
    );
    expect(stderr).toMatch(/^warning: .*access/m);
  });

  test("wrong settings of a plugin are told in the words of the rest of the file", async () => {
    const path = await put(
      "words.yaml",
      settings(
        outbound(
          {
            name: "egress-policy",
            config: { allow: [], empty_binaries: "maybe", head_matches_get: 1 },
          },
          "mcp-parser",
          { name: "tool-policy", config: {} },
        ),
      ),
    );
    const { code, stderr } = await runProgram(["check", "--config", path]);
    expect(code).toBe(2);
    expect(stderr).toContain('config.empty_binaries: must be "any" or "deny"');
    expect(stderr).toContain("config.head_matches_get: must be true or false, not a number");
    expect(stderr).toContain("config.servers: is required");
    expect(stderr).not.toContain("Invalid");
  });
});

describe("policy test", () => {
  test("prints a table, and fails with one of its cases", async () => {
    await put("suite/policy.yaml", { version: 1, network_policies: policy });
    await put("suite/read.yaml", {
      policy: "policy.yaml",
      cases: [
        {
          name: "curl reads",
          url: "https://api.example.com/v1/x",
          binary: "/usr/bin/curl",
          expect: "allow",
          rule: "endpoints[0].rules[0]",
        },
        {
          name: "node may not",
          connect: "api.example.com:443",
          binary: "/usr/bin/node",
          expect: "deny",
          reason: "not allowed in policy 'api'",
        },
      ],
    });
    const good = await runProgram(["policy", "test", join(folder, "suite")]);
    expect(good).toMatchObject({ code: 0, stderr: "" });
    expect(good.stdout).toContain("2 passed, 0 failed");
    await put("suite/more/write.yaml", {
      egress_policy: { policy_file: "../policy.yaml", empty_binaries: "deny" },
      cases: [{ connect: "inside.example.com:443", expect: "allow" }],
    });
    const bad = await runProgram(["policy", "test", join(folder, "suite")]);
    expect(bad.code).toBe(1);
    expect(bad.stdout).toMatch(/FAIL +case 1 .*\n +expected allow, got deny/);
    expect(bad.stdout).toContain("2 passed, 1 failed");
  });

  test("judges bodies and audit, and a whole configuration", async () => {
    const mcp = {
      host: "mcp.example.com",
      port: 443,
      protocol: "mcp",
      rules: [{ allow: { method: "tools/call", tool: "read_*" } }],
    };
    const call = (name: string): unknown => ({
      jsonrpc: "2.0",
      id: 1,
      method: "tools/call",
      params: { name },
    });
    await put("whole/proxy.yaml", file);
    await put("whole/mcp.yaml", {
      egress_policy: { network_policies: { m: { endpoints: [mcp] } } },
      cases: [
        {
          url: "https://mcp.example.com/mcp",
          method: "POST",
          body: call("read_x"),
          expect: "allow",
        },
        {
          url: "https://mcp.example.com/mcp",
          method: "POST",
          body: call("write"),
          expect: "audit",
        },
      ],
    });
    await put("whole/config.yaml", {
      config: "proxy.yaml",
      cases: [{ connect: "evil.test:443", expect: "deny", plugin: "egress-policy", status: 403 }],
    });
    const ended = await runProgram(["policy", "test", join(folder, "whole"), "--json"]);
    expect(ended).toMatchObject({ code: 0, stderr: "" });
    expect(JSON.parse(ended.stdout)).toHaveLength(3);
  });

  test("says where the policy in a file of cases is wrong", async () => {
    const cases = "cases: [{ connect: a:1, expect: allow }]";
    const inline = await put(
      "inline/a.yaml",
      `${cases}\negress_policy:\n  allow: [a.test]\n  empty_binary: any\n`,
    );
    const ended = await runProgram(["policy", "test", join(folder, "inline")]);
    expect(ended.code).toBe(2);
    expect(ended.stderr).toContain(
      `${inline}:4:3 egress_policy.empty_binary: unknown key (did you mean empty_binaries?)`,
    );
    const named = await put("named/a.yaml", `${cases}\npolicy: gone.yaml\n`);
    const absent = await runProgram(["policy", "test", join(folder, "named")]);
    expect(absent.code).toBe(2);
    expect(absent.stderr).toContain(`${named}:2:`);
    expect(absent.stderr).toContain("gone.yaml: the file does not exist");
  });

  test("says where a file of cases is wrong", async () => {
    const path = await put(
      "wrong/a.yaml",
      "policy: p.yaml\ncases:\n  - { conect: a:1, expect: alow }\n",
    );
    const ended = await runProgram(["policy", "test", join(folder, "wrong")]);
    expect(ended.code).toBe(2);
    expect(ended.stderr).toContain(`${path}:3:`);
    expect(ended.stderr).toContain("did you mean 'connect'");
    expect((await runProgram(["policy", "test", join(folder, "nothing")])).code).toBe(2);
  });
});

describe("policy suggest", () => {
  const config = settings(
    merge(outbound({ name: "egress-policy", config: { network_policies: policy } }), {
      pipeline: { outbound: { default: "deny" } },
    }),
  );

  test("asks the running proxy, and what it prints allows what was refused", async () => {
    const proxy = await own(ProxyProcess.start(config));
    for (const target of ["http://new.example.com/items/42", "http://169.254.169.254/latest"]) {
      expect((await getThrough(proxy.forward.port, target, undefined)).status).toBe(403);
    }
    const observed = (await proxy.sessions("/v1/policy/denials")).text;
    // The console shows the same words.
    const { instances } = JSON.parse(observed) as {
      instances: { observed: { denials: { host: string; suggestion: string }[] } }[];
    };
    const suggested = new Map(
      instances.flatMap((one) => one.observed.denials).map((one) => [one.host, one.suggestion]),
    );
    expect(suggested.get("new.example.com")).toContain('path: "/items/*"');
    expect(suggested.get("169.254.169.254")).toBe(
      "# nothing to add\n# not suggested: 169.254.169.254:80: cloud metadata services are never opened\n",
    );
    const api = createServer((_request, response) => response.end(observed));
    await new Promise<void>((resolve) => api.listen(0, "127.0.0.1", resolve));
    const { port } = api.address() as AddressInfo;
    const path = await put(
      "running.yaml",
      merge(config, { listener: { session_api_addr: `127.0.0.1:${port}` } }),
    );
    const ended = await runProgram(["policy", "suggest", "--config", path]);
    api.close();
    expect(ended).toMatchObject({ code: 0, stderr: "" });
    expect(ended.stdout).toMatch(/# risk: .*\n +- host: "new.example.com"/);
    expect(ended.stdout).toContain("# not suggested: 169.254.169.254:80: cloud metadata");
    const addition = parse(ended.stdout) as { network_policies: object };
    const extended = outbound({
      name: "egress-policy",
      config: { network_policies: { ...policy, ...addition.network_policies } },
    });
    await put("next.yaml", merge(config, extended));
    const again = await runProgram(
      `explain --config ${join(folder, "next.yaml")} --url http://new.example.com/items/43 --no-resolve --binary ${realpathSync(process.execPath)}`.split(
        " ",
      ),
    );
    expect(again.code, again.stdout).toBe(0);
  });

  test("makes methods and paths of what an empty list under on_error: observe let through", async () => {
    const origin = await own(HttpOrigin.launch());
    const { port } = origin;
    const watching = settings(
      merge(outbound({ name: "egress-policy", on_error: "observe", config: { allow: [] } }), {
        egress: { hosts: { "new.example.com": ["127.0.0.1"] } },
      }),
    );
    const proxy = await own(ProxyProcess.start(watching));
    for (const path of ["/items/42", "/items/43", "/search?q=secret"]) {
      const url = `http://new.example.com:${port}${path}`;
      expect((await getThrough(proxy.forward.port, url, undefined)).status).toBe(200);
    }
    const saved = await put("observed.json", (await proxy.sessions("/v1/policy/denials")).text);
    const path = await put("watching.yaml", watching);
    const ended = await runProgram(["policy", "suggest", "--config", path, "--from", saved]);
    expect(ended).toMatchObject({ code: 0, stderr: "" });
    const { network_policies: entries } = parse(ended.stdout) as {
      network_policies: Record<string, { endpoints: object[] }>;
    };
    expect(Object.values(entries).flatMap(({ endpoints }) => endpoints)).toMatchObject([
      {
        host: "new.example.com",
        port,
        rules: [
          { allow: { method: "GET", path: "/items/*" } },
          { allow: { method: "GET", path: "/search" } },
        ],
      },
    ]);
  });

  test("reads saved denials, and says what is wrong with them", async () => {
    const path = await put("saved.yaml", config);
    const suggest = (from: string): Promise<Ended> =>
      runProgram(["policy", "suggest", "--config", path, "--from", from]);
    const empty = await suggest(await put("empty.json", '{"instances":[]}'));
    expect(empty).toMatchObject({ code: 0, stdout: "# nothing to add\n" });
    expect((await suggest(await put("broken.json", "{"))).code).toBe(2);
    // What a client asked for reaches the operator's terminal as text, and the file as what it was.
    const [method, asked] = ["GET", "/\u009b2J\u202e/😀"];
    const sample = { code: "endpoint-not-allowed", method, path: asked };
    const place = { host: "a.example", port: 443, code: "endpoint-not-allowed", binary: "/x" };
    const denials = [{ ...place, count: 1, firstSeen: 1, lastSeen: 1, samples: [sample] }];
    const hostile = await suggest(
      await put("c1.json", JSON.stringify({ instances: [{ plugin: "p", observed: { denials } }] })),
    );
    expect(hostile.stdout).toMatch(/^[\n\u0020-\u007e]+$/);
    expect(JSON.stringify(parse(hostile.stdout))).toContain(asked);
    expect((await suggest(await put("other.json", "{}"))).stderr).toContain("instances");
    expect((await suggest(join(folder, "absent.json"))).code).toBe(2);
  });

  test("shows the secret of the session API that the file names", async () => {
    const secret = await put("api-secret", "s3cret");
    const api = createServer((request, response) => {
      response.statusCode = request.headers.authorization === "Bearer s3cret" ? 200 : 401;
      response.end('{"instances":[]}');
    });
    await new Promise<void>((resolve) => api.listen(0, "127.0.0.1", resolve));
    const { port } = api.address() as AddressInfo;
    const path = await put(
      "secured.yaml",
      merge(config, {
        listener: { session_api_addr: `127.0.0.1:${port}` },
        session: { api_secret_file: secret },
      }),
    );
    const ended = await runProgram(["policy", "suggest", "--config", path]);
    api.close();
    expect(ended).toMatchObject({ code: 0, stdout: "# nothing to add\n" });
  });

  test("says that nobody answers", async () => {
    const path = await put(
      "stopped.yaml",
      merge(config, { listener: { session_api_addr: "127.0.0.1:1" } }),
    );
    const ended = await runProgram(["policy", "suggest", "--config", path]);
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain("127.0.0.1:1 does not answer");
  });
});
