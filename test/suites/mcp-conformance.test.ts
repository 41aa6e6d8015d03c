/**
 * MCP by the conformance suite of the protocol, whose program `MCP_CONFORMANCE` names; skipped where there is none.
 * `.ci/suites/mcp-conformance` installs it and runs this file.
 *
 * It attacks a server of the SDK, and a client of the SDK: directly, and through the proxy with everything in the pipeline
 * that reads MCP. By no way may a check end worse than directly.
 */
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { ConformanceServer, toolNames } from "../support/conformance-server.ts";
import { owner } from "../support/owner.ts";
import { tlsFront } from "../support/web-socket-doors.ts";

const program = process.env["MCP_CONFORMANCE"] ?? "";
const limitMs = 600_000;
const own = owner();
const client = fileURLToPath(new URL("../support/conformance-client.ts", import.meta.url));
const origin = "api.allowed.test";

/** Of the servers that attack a client. */
const toolsOfSuite = ["add_numbers", "test_client_elicitation_defaults", "test-tool"];
/** Everything that reads MCP, and lets pass what the suite says. */
const plugins = [
  "mcp-parser",
  {
    name: "tool-policy",
    config: {
      other_servers: "ignore",
      servers: [
        {
          name: "conformance",
          methods: [
            "initialize",
            "ping",
            "notifications/*",
            "tools/list",
            "prompts/*",
            "resources/*",
            "completion/complete",
            "logging/setLevel",
          ],
          server_requests: ["ping", "elicitation/create", "sampling/createMessage"],
          rules: [{ name: "of-the-suite", tools: [...toolNames, ...toolsOfSuite] }],
        },
      ],
    },
  },
  { name: "prompt-guard", config: {} },
  { name: "dlp", config: { default: { action: "refuse" } } },
];

/** Checks by scenario and id, with the worst status that each had. */
type Checks = Map<string, string>;
const statuses = ["SKIPPED", "INFO", "SUCCESS", "WARNING", "FAILURE"];

async function checksOf(args: readonly string[], environment: NodeJS.ProcessEnv): Promise<Checks> {
  const out = await mkdtemp(join(tmpdir(), "mcp-conformance-"));
  try {
    await new Promise<void>((resolve) => {
      const env = { PATH: process.env["PATH"], HOME: out, ...environment };
      // It ends with 1 where a check fails, which is seen in its files.
      const options = { env, cwd: out, timeout: limitMs, maxBuffer: 64 * 1024 * 1024 };
      execFile(process.execPath, [program, ...args, "-o", out], options, () => resolve());
    });
    const checks: Checks = new Map();
    for (const path of await readdir(out, { recursive: true })) {
      if (!path.endsWith("checks.json")) continue;
      const scenario = path.replace(/-\d{4}-\d\d-\d\dT.*$/, "");
      const listed = JSON.parse(await readFile(join(out, path), "utf8")) as {
        id: string;
        status: string;
      }[];
      for (const { id, status } of listed) {
        const key = `${scenario} ${id}`;
        const worst = Math.max(statuses.indexOf(checks.get(key) ?? ""), statuses.indexOf(status));
        checks.set(key, statuses[worst] ?? status);
      }
    }
    return checks;
  } finally {
    await rm(out, { recursive: true, force: true });
  }
}

/** What is expected to differ, and why. */
const expected: readonly { readonly way: string; readonly checks: RegExp; readonly why: string }[] =
  [
    {
      way: "bridge",
      checks: /^server-dns-rebinding-protection /,
      why: "the scenario is for servers without TLS that are called by a loopback name",
    },
    {
      way: "forward",
      checks: / client-sse-retry-timing$/,
      why: "it measures a fifth of a second, which a busy machine does not keep",
    },
  ];

/** What ends worse than directly; what is only told counts for nothing. */
function worse(than: Checks, checks: Checks, by: string): string[] {
  const bad = (status = "FAILURE"): number => Math.max(statuses.indexOf(status), 2);
  return [...than]
    .filter(([key, status]) => bad(status) < bad(checks.get(key)) && status !== "INFO")
    .filter(([key]) => !expected.some(({ way, checks: some }) => way === by && some.test(key)))
    .map(([key, status]) => `${key}: ${status}, ${checks.get(key) ?? "not reached"}`);
}

const count = (checks: Checks, status: string): number =>
  [...checks.values()].filter((one) => one === status).length;

describe.skipIf(program === "")("MCP's conformance suite", () => {
  let server: ConformanceServer;
  let proxy: BridgeProxy;
  let secured: string;

  beforeAll(async () => {
    server = await own(ConformanceServer.start());
    const authority = await TestAuthority.create();
    const front = await own(tlsFront(await authority.server([origin]), server.port));
    secured = `https://${origin}:${front.number}/mcp`;
    proxy = await own(
      BridgeProxy.start({
        ports: [front.number],
        originCa: authority.caPem,
        file: {
          listener: {
            forward_proxy_addr: "127.0.0.1:0",
            reverse_proxy_addr: "127.0.0.1:0",
            session_api_addr: "127.0.0.1:0",
            health_addr: "127.0.0.1:0",
            transparent_proxy_addr: "off",
            reverse_proxy_backend: `http://127.0.0.1:${server.port}`,
          },
          pipeline: { inbound: { plugins }, outbound: { plugins } },
        },
      }),
    );
  }, limitMs);

  const throughForward = (): NodeJS.ProcessEnv => ({
    NODE_USE_ENV_PROXY: "1",
    HTTP_PROXY: proxy.url,
    HTTPS_PROXY: proxy.url,
    NODE_EXTRA_CA_CERTS: proxy.caFile,
  });

  describe("on a server", () => {
    let direct: Checks;
    const attack = (url: string, environment: NodeJS.ProcessEnv = {}): Promise<Checks> =>
      checksOf(["server", "--url", url, "--suite", "all"], environment);
    const plain = (): string => `http://127.0.0.1:${server.port}/mcp`;

    beforeAll(async () => {
      direct = await attack(plain());
      console.log(`${direct.size} checks, ${count(direct, "SUCCESS")} passed`);
    }, limitMs);

    test("directly", () => {
      expect(count(direct, "SUCCESS")).toBeGreaterThan(40);
      expect(count(direct, "FAILURE")).toBe(0);
    });

    test.each([
      { way: "forward", where: plain, environment: throughForward },
      { way: "bridge", where: () => secured, environment: throughForward },
      {
        way: "reverse",
        where: () => `http://127.0.0.1:${proxy.reverse.port}/mcp`,
        environment: () => ({}),
      },
    ])(
      "by $way no worse",
      async ({ way, where, environment }) => {
        expect(worse(direct, await attack(where(), environment()), way)).toEqual([]);
        expect(proxy.faults).toEqual([]);
      },
      limitMs,
    );
  });

  describe("on a client", () => {
    const attack = (environment: NodeJS.ProcessEnv): Promise<Checks> => {
      const set = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
      const command = ["env", ...set, process.execPath, client].join(" ");
      return checksOf(
        ["client", "--command", command, "--suite", "core", "--timeout", "60000"],
        {},
      );
    };

    test(
      "by forward no worse",
      async () => {
        const direct = await attack({});
        console.log(
          `${direct.size} checks, ${count(direct, "SUCCESS")} passed, ${count(direct, "FAILURE")} failed`,
        );
        expect(count(direct, "SUCCESS")).toBeGreaterThan(0);
        expect(worse(direct, await attack(throughForward()), "forward")).toEqual([]);
        expect(proxy.faults).toEqual([]);
      },
      limitMs,
    );
  });
});
