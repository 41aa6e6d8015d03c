/** Keys of plugins that are accepted and do nothing: whoever wrote one is told of it, with its place. */
import { describe, expect, test } from "vitest";
import { owner } from "../support/owner.ts";
import { runWith, type Settings } from "../support/program.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();

/** One plugin of the chain has the keys. */
interface Case {
  readonly chain: Settings;
  readonly direction?: "inbound" | "outbound";
  /** Of the plugin; 0 where it is not said. */
  readonly at?: number;
  readonly keys: readonly string[];
}

function fileOf({ chain }: Case): Settings {
  return merge(settings(), chain);
}

function placesOf({ keys, direction = "outbound", at = 0 }: Case): string[] {
  return keys.map((key) => `pipeline.${direction}.plugins[${at}].config.${key}: has no effect`);
}

/** What a text says of keys without an effect, each with the place in the file cut off. */
function told(text: string): string[] {
  return [...text.matchAll(/proxy\.yaml:\d+:\d+ (\S+: has no effect)/g)].flatMap(
    ([, said]) => said ?? [],
  );
}

function budget(config: Settings): Settings {
  return outbound({
    name: "session-budget",
    config: { redis_url: "redis://r", max_calls: 1, ...config },
  });
}

const pause = { pause_timeout: "30s", pause_timeout_action: "deny", pause_grace_period: "5m" };

const overHttp = { http_service: { server_uri: { uri: "http://a.test" } } };
const overGrpc = { grpc_service: { target_uri: "http://a.test" } };
const attributes = {
  with_request_body: { max_request_bytes: 10, pack_as_bytes: false },
  encode_raw_headers: true,
  include_peer_certificate: true,
  include_tls_session: true,
  include_executable: false,
  include: ["mcp.params"],
  context_extensions: { a: "b" },
};
function authz(config: Settings): unknown {
  return { name: "ext-authz", config };
}

function budgets(unit: string, mode: string): unknown {
  const limits = [{ name: "day", unit, limit: 1, window: "day", mode }];
  return { name: "budgets", config: { limits, unknown_models: "allow" } };
}

const unread = {
  type: "client-secret",
  client_id: "c",
  client_id_file: "/c",
  client_secret: "s",
  jwt_audience: "a",
};

const summaries = { base_url: "http://m.test", model: "m", max_tokens: 9 };

function guru(config: Settings): unknown[] {
  return ["inference-parser", { name: "context-guru", config }];
}

function guard(where: readonly string[]): unknown {
  const marked = { action: "mark", marking: "datamark", remove_invisible: false };
  const rules = [
    { name: "a", content_types: ["text/html"], ...marked },
    { name: "b", ...marked, action: "refuse" },
  ];
  return { name: "prompt-guard", config: { where, rules, unseen: "refuse", unread_types: "pass" } };
}

const cases: [string, Case][] = [
  [
    "session-budget without pause",
    {
      chain: budget({ refresh_interval: "5s", pause_webhook: "http://w.test/", ...pause }),
      keys: ["refresh_interval", "pause_webhook", ...Object.keys(pause)],
    },
  ],
  [
    "session-budget with pause",
    {
      chain: budget({
        refresh_interval: "5s",
        on_exceed: "pause",
        pause_webhook: "http://w.test/",
        ...pause,
      }),
      keys: ["refresh_interval"],
    },
  ],
  ["session-budget without them", { chain: budget({}), keys: [] }],
  [
    "dlp",
    {
      chain: outbound({
        name: "dlp",
        config: {
          rules: [
            { hosts: ["a.test"], detectors: ["one"], action: "redact", mask: "label" },
            { hosts: ["b.test"], detectors: ["two"], action: "pass", mask: "label" },
          ],
          default: { response_detectors: ["three"], action: "observe" },
          patterns: ["one", "two", "three", "four"].map((name) => ({ name, pattern: "x+" })),
        },
      }),
      keys: ["rules[1].mask", "patterns[1]", "patterns[3]"],
    },
  ],
  [
    "budgets without a price",
    {
      chain: outbound("inference-parser", budgets("cost", "soft")),
      at: 1,
      keys: ["unknown_models"],
    },
  ],
  ["budgets with one", { chain: outbound("inference-parser", budgets("cost", "hard")), keys: [] }],
  [
    "context-guru that leaves nothing out",
    {
      chain: outbound(
        ...guru({ engine: { preset: "safe" }, min_chars: 256, keep_chars: 256, model: summaries }),
      ),
      at: 1,
      keys: ["keep_chars", "model"],
    },
  ],
  [
    "context-guru with a model that has no address",
    {
      chain: outbound(...guru({ model: { api_key_file: "k", max_tokens: 0 } })),
      at: 1,
      keys: ["model.api_key_file", "model.max_tokens"],
    },
  ],
  [
    "context-guru with one",
    { chain: outbound(...guru({ keep_chars: 256, model: summaries })), keys: [] },
  ],
  [
    "prompt-guard for outputs of tools",
    {
      chain: outbound("inference-parser", guard(["tool_outputs"])),
      at: 1,
      keys: [
        "rules[0].content_types",
        "rules[1].marking",
        "rules[1].remove_invisible",
        "unseen",
        "unread_types",
      ],
    },
  ],
  [
    "prompt-guard for responses",
    {
      chain: outbound(guard(["responses"])),
      keys: ["rules[1].marking", "rules[1].remove_invisible"],
    },
  ],
  [
    "token-exchange",
    {
      chain: outbound({
        name: "token-exchange",
        config: { token_url: "http://t.test", identity: unread },
      }),
      keys: ["identity.client_id_file", "identity.jwt_audience"],
    },
  ],
  [
    "introspection",
    {
      chain: inbound({
        name: "jwt-validation",
        config: { issuer: "http://i.test", audience: "a", introspection: { identity: unread } },
      }),
      direction: "inbound",
      keys: ["introspection.identity.client_id_file", "introspection.identity.jwt_audience"],
    },
  ],
  [
    "a client of a source of secrets",
    {
      chain: outbound({
        name: "static-inject",
        config: {
          source: "mappings",
          mappings: {
            "a.test": {
              type: "oauth_client_credentials",
              token_url: "http://t.test",
              identity: unread,
            },
          },
        },
      }),
      keys: ["mappings.a.test.identity.client_id_file", "mappings.a.test.identity.jwt_audience"],
    },
  ],
  [
    "ibac with the agent's own model",
    {
      chain: outbound("mcp-parser", {
        name: "ibac",
        config: {
          judge_endpoint: "http://j.test",
          judge_model: "m",
          judge_inference: true,
          agent_llm_host: "m.test",
        },
      }),
      at: 1,
      keys: ["judge_inference"],
    },
  ],
  [
    "ext-authz over HTTP",
    {
      chain: outbound(authz({ ...overHttp, ...attributes })),
      keys: ["with_request_body.pack_as_bytes", ...Object.keys(attributes).slice(1)],
    },
  ],
  [
    "ext-authz that includes what nobody finds",
    { chain: outbound(authz({ ...overGrpc, include: ["inference.messages"] })), keys: ["include"] },
  ],
  [
    "ext-authz over gRPC",
    { chain: outbound("mcp-parser", authz({ ...overGrpc, ...attributes })), at: 1, keys: [] },
  ],
  [
    "ext-authz without the parser",
    { chain: outbound(authz({ ...overGrpc, ...attributes })), keys: ["include"] },
  ],
  [
    "ext-authz inbound",
    {
      chain: inbound(
        authz({ ...overGrpc, include_executable: true, connect: "check", allow_headers: ["host"] }),
      ),
      direction: "inbound",
      keys: ["include_executable", "connect"],
    },
  ],
  [
    "ext-authz outbound",
    {
      chain: outbound(authz({ ...overGrpc, allow_headers: ["cookie", "host"] })),
      keys: ["allow_headers[1]"],
    },
  ],
];

describe("check names each of them", () => {
  test.each(cases)("%s", async (_name, one) => {
    const { code, stderr } = await runWith("check", fileOf(one));
    expect(told(stderr)).toEqual(placesOf(one));
    expect(code).toBe(0);
  });
});

test("the start and a reload tell of them too, whatever the threads", async () => {
  const file = (config: Settings) => ({ ...merge(settings(), budget(config)), workers: 2 });
  const proxy = await own(ProxyProcess.start(file({ refresh_interval: "5s" })));
  const isTold = (key: string) =>
    proxy.log(
      ({ msg, problem }) =>
        msg === "configuration warning" && String(problem).includes(`${key}: has no effect`),
    );
  await isTold("refresh_interval");
  await proxy.reload(file({ pause_timeout: "5s" }));
  await isTold("pause_timeout");
});

test("doctor counts them", async () => {
  const masked = { default: { action: "observe", mask: "label" } };
  const file = merge(settings(), outbound({ name: "dlp", config: masked }));
  const { stderr } = await runWith("check", file);
  const { stdout } = await runWith("doctor", file);
  const warnings = stderr.match(/^warning: /gm) ?? [];
  expect(stdout).toContain(`check prints its ${warnings.length} warning(s)`);
});
