/** Files for the Go program: every key that it documents, in every form, loads here, or is refused on purpose and in words. */
import { describe, expect, test } from "vitest";
import { runWith } from "../support/program.ts";

const reverse = 'listener: {reverse_proxy_backend: "http://127.0.0.1:8000"}\n';
const forward = "listener: {roles: [forward]}\n";
const inbound = (...entries: string[]): string =>
  `${reverse}pipeline: {inbound: {plugins: [${entries.join(", ")}]}}\n`;
const outbound = (...entries: string[]): string =>
  `${reverse}pipeline: {outbound: {plugins: [${entries.join(", ")}]}}\n`;
const jwt = (more: string): string =>
  `{name: jwt-validation, config: {issuer: "https://idp.test/realms/r", ${more}}}`;
const secret = "identity: {type: client-secret, client_id: me, client_secret: s}";
const exchange = (more: string, identity = secret): string =>
  `{name: token-exchange, config: {token_url: "https://idp.test/token", ${identity}, ${more}}}`;
const bridge = (more: string): string =>
  `${forward}tls_bridge: {mode: enabled, ca_dir: ./ca, generate_ca: true, ${more}}\n`;
const inject = (more: string): string => outbound(`{name: static-inject, config: {${more}}}`);
const ibac = (more: string): string =>
  outbound(
    "mcp-parser",
    `{name: ibac, config: {judge_endpoint: "http://judge.test", judge_model: m, ${more}}}`,
  );

/** What loads in the Go program and here. */
const loads: Readonly<Record<string, string>> = {
  "1.1 nothing but a backend": reverse,
  "1.1 every listener, empty ones and both roles": `mode: ""
listener:
  roles: []
  reverse_proxy_addr: ""
  reverse_proxy_backend: "http://127.0.0.1:8000/base/"
  forward_proxy_addr: ":8081"
  transparent_proxy_addr: ""
  session_api_addr: "0.0.0.0:9094"
  skip_hosts: ["otel-collector*", "{a,b}.svc", "*.ns.svc.cluster.local"]
  ext_proc_addr: ""
  ext_authz_addr: ""
  inbound_interception: ""
`,
  "1.1 blocks without anything": `${reverse}pipeline:\nsession:\nstats:\ntls_bridge:\n`,
  "1.1 pipelines without anything": `${reverse}pipeline: {inbound: , outbound: {plugins: }}\n`,
  "1.1 entries: bare, twice, with a number as id, off and not there": inbound(
    "a2a-parser",
    "{name: a2a-parser, id: 2, on_error: , config: null}",
    "{name: sparc, on_error: off}",
  ),
  "1.1 session: all, with numbers that mean the default": `${reverse}session: {enabled: yes, ttl: 168h, max_events: 0, max_sessions: -1}\n`,
  "9 session: kept for ever": `${reverse}session: {ttl: never}\n`,
  "1.1 session: switched off": `${reverse}session: {enabled: off}\n`,
  "1.1 mtls and spiffe: empty": `${reverse}spiffe: {}\nmtls: {mode: ""}\n`,
  "1.1 mtls and spiffe: all": `${reverse}spiffe: {socket: "unix:///run/agent.sock", mirror_files: no, mirror_dir: /opt}\nmtls: {mode: strict, extra: 1}\n`,
  "1.1 bridge: all": bridge(
    'upstream_ca_bundle: "", passthrough_hosts: [a.test, B.test], ports: [443, 8443, 9443]',
  ),
  "9 bridge: verifies every origin": bridge("upstream_insecure: false"),
  "1.1 bridge: off": `${reverse}tls_bridge: {mode: disabled, ports: []}\n`,
  "1.4 variables, and dollars that are none": `# costs $5\n${inbound(jwt('audience: "${AGENT}", bypass_paths: ["/a$"]'))}`,
  "demo file": `mode: proxy-sidecar
listener: {roles: [forward], forward_proxy_addr: "127.0.0.1:47600", session_api_addr: "127.0.0.1:47601"}
stats: {address: "127.0.0.1:47602"}
tls_bridge: {mode: enabled, ca_dir: ./cortex-ca, generate_ca: true}
pipeline: {outbound: {plugins: [inference-parser, mcp-parser, a2a-parser]}}
`,
  "2.1 jwt-validation: all": inbound(
    jwt(
      'jwks_url: "http://k/certs", keycloak_url: "http://k:8080", keycloak_realm: r, audience_mode: static, audience: a, audience_file: /shared/client-id.txt, allowed_audiences: [b, c], bypass_paths: [" /healthz ", "/a/[ab]*"], placeholder_mode: true, placeholder_ttl: 90m',
    ),
  ),
  "2.1 jwt-validation: per host": inbound(jwt("audience_mode: per-host")),
  "2.1 jwt-validation: an issuer that is no address": inbound(
    '{name: jwt-validation, config: {issuer: my-issuer, jwks_url: "http://k/certs"}}',
  ),
  "2.2 token-exchange: all": outbound(
    exchange(
      'default_policy: exchange, no_token_policy: client-credentials, audience_from_host: true, resolve_placeholders: true, routes: {file: /etc/authproxy/routes.yaml, rules: [{host: "*", target_audience: a, token_scopes: "openid  a", token_url: "http://t", action: exchange}, {host: "**", passthrough: true}, {host: "{a,b}.c", action: passthrough}, {host: "svc:8081"}]}',
    ),
  ),
  "2.2 token-exchange: providers and aliases": outbound(
    `{name: token-exchange, config: {provider: keycloak, provider_url: "http://k:8080/", provider_realm: r, ${secret}}}`,
    `{name: token-exchange, config: {keycloak_url: "http://k:8080", keycloak_realm: r, ${secret}}}`,
    `{name: token-exchange, config: {provider: generic, token_url: "http://t", ${secret}}}`,
  ),
  "2.2 token-exchange: identities": `${outbound(
    exchange("", "identity: {type: client-secret}"),
    exchange(
      "",
      "identity: {type: client-secret, client_id: a, client_id_file: /a, client_secret: s, client_secret_file: /b}",
    ),
    exchange(
      "",
      "identity: {type: spiffe, client_id: a, jwt_audience: x, assertion_type: jwt-bearer}",
    ),
  )}spiffe: {}\n`,
  "2.3 opa": outbound(
    '{name: opa, config: {bundle_url: "http://b", agent_id: "spiffe://x/y", agent_id_file: "", polling_min_delay: 0, polling_max_delay: 0, include: [a2a.content, mcp.params, mcp.params.x, mcp.result, mcp.error, inference.tools.detail, inference.messages, inference.completion, inference.tool_calls]}}',
  ),
  "2.4 static-inject: a directory": inject(
    "source: secret_dir, secret_dir: /s, mappings: {}, key_by: host",
  ),
  "2.4 static-inject: mappings": inject(
    'source: mappings, secret_dir: "", mappings: {a: b}, key_by: static, key: a, placeholder: x, inject_header: X-Api-Key',
  ),
  "2.5 token-broker": outbound(
    '{name: token-broker, config: {broker_url: "http://b/", default_policy: broker, routes: {file: "", rules: [{host: a, action: broker, authorization_endpoint: "https://x/a", token_endpoint: "https://x/t"}, {host: b, action: passthrough}]}}}',
  ),
  "2.7 parsers": outbound(
    'a2a-parser, inference-parser, {name: mcp-parser, config: {paths: ["/mcp", "/x/*"]}}',
  ),
  "2.8 ibac: all": ibac(
    'judge_bearer: t, system_prompt: p, timeout_ms: 100, judge_max_tokens: 64, judge_json_mode: false, judge_inference: true, agent_llm_host: llm.test, bypass_hosts: ["a.*"], bypass_paths: ["/x"], no_intent_policy: deny, unclassified_policy: judge',
  ),
  "2.8 ibac: zeros and empty ones are defaults": ibac(
    'judge_bearer: "", system_prompt: "", timeout_ms: 0, judge_max_tokens: 0, agent_llm_host: "", bypass_hosts: [], bypass_paths: , no_intent_policy: "", unclassified_policy: ',
  ),
  "2.9 sparc: all": outbound(
    'mcp-parser, {name: sparc, config: {reflector_endpoint: "http://r", reflector_bearer: t, enforcement: mcp, track: slow_track, timeout_ms: 100, on_reject_action: deny, deny_score_threshold: 0.5, fail_policy: closed, skip_tools: ["a*"], reflect_tools: [b], bypass_hosts: [a.test], bypass_paths: ["/x"]}}',
  ),
  "2.9 sparc: zeros and empty ones are defaults": outbound(
    'inference-parser, {name: sparc, config: {reflector_endpoint: "http://r", reflector_bearer: "", enforcement: inference, track: "", timeout_ms: 0, on_reject_action: "", deny_score_threshold: 0, fail_policy: "", skip_tools: , reflect_tools: [], bypass_hosts: , bypass_paths: }}',
  ),
  "2.10 context-guru": outbound(
    'inference-parser, {name: context-guru, config: {paths: ["/v1/messages"], model: {base_url: "http://m", model: m, api_key: k, max_tokens: 4096, timeout_ms: 150000}, engine: {preset: balanced}}}',
  ),
  "2.10 context-guru: nothing, and zeros": outbound(
    "inference-parser, context-guru",
    "{name: context-guru, on_error: off, config: {}}",
  ),
  "2.10 litellm-budget-track": outbound(
    "{name: litellm-budget-track, config: {spend_file: /tmp/spend.json, max_budget: 10}}",
  ),
  "9 session-budget": outbound(
    'inference-parser, {name: session-budget, config: {redis_url: "redis://r:6379", max_tokens: 1}}',
  ),
  "presets of the operator": `${inbound(
    "{name: jwt-validation, on_error: off, config: {issuer: https://idp.test/realms/r}}",
    "{name: a2a-parser, on_error: observe}",
  )}allow_weakened_auth: true\n`,
};

test.each(Object.entries(loads))("%s", async (_name, text) => {
  const { code, stderr } = await runWith("check", text, { env: { AGENT: "agent" } });
  expect(code, stderr).toBe(0);
});

/** What loads in the Go program and is refused here on purpose (docs/compatibility.md), with what the refusal says. */
const refused: Readonly<Record<string, readonly [text: string, words: RegExp]>> = {
  "a key that nobody knows": [`${reverse}pipelin: {}\n`, /pipelin: unknown key/],
  "a key of a block that nobody knows": [
    "listener: {roles: [forward], foo: 1}\n",
    /listener\.foo: unknown key/,
  ],
  "a key of litellm-budget-track that nobody knows": [
    outbound("{name: litellm-budget-track, config: {spend_file: /s, max_budget: 1, extra: 1}}"),
    /config\.extra: unknown key/,
  ],
  "a second document": [`${reverse}---\nmode: x\n`, /more than one document/],
  "a variable that is not set": [inbound(jwt('audience: "${NOT_SET}"')), /NOT_SET/],
  "an action that nobody knows": [
    outbound(exchange("routes: {rules: [{host: a, action: inject}]}")),
    /action: must be "exchange" or "passthrough"/,
  ],
  "authentication that is switched off without a word": [
    inbound("{name: jwt-validation, on_error: off, config: {issuer: https://idp.test/realms/r}}"),
    /allow_weakened_auth: true at the top of the file/,
  ],
  "a key of context-guru that nobody knows": [
    outbound("inference-parser", "{name: context-guru, config: {extra: 1}}"),
    /config\.extra: unknown key/,
  ],
  "a source that is not read": [
    inject("source: mappings, secret_dir: /s, mappings: {a: b}"),
    /secret_dir: has no effect/,
  ],
  "a bypass of every host": [ibac('bypass_hosts: ["*"]'), /on_error: off/],
  "origins that are not verified, whoever they are": [
    bridge("upstream_insecure: true"),
    /upstream_insecure: .*upstream_insecure_hosts/,
  ],
  "a plugin that sends spans of its own": [
    outbound("{name: lineage-telemetry, config: {otel_endpoint: localhost:4317}}"),
    /lineage-telemetry.*not available in this version.*telemetry\.otlp/,
  ],
  "another mode": [`mode: envoy-sidecar\n${reverse}`, /supports only mode "proxy-sidecar"/],
  "a policy engine of another binary": [
    outbound("mcp-parser", "{name: cpex, config: {config_file: /x}}"),
    /cpex.*not available in this version/,
  ],
};

test.each(Object.entries(refused))("refused: %s", async (_name, [text, words]) => {
  const { code, stderr } = await runWith("check", text);
  expect(code).toBe(2);
  expect(stderr).toMatch(words);
});

describe("routes files", () => {
  const config = (plugin: string): string =>
    outbound(
      plugin === "token-exchange"
        ? exchange("routes: {file: routes.yaml}")
        : '{name: token-broker, config: {broker_url: "http://b", routes: {file: routes.yaml}}}',
    );
  const forms = {
    "a bare list": "- {host: a.test}\n- {host: b.test, action: passthrough}\n",
    "a map, as documents show it": "routes:\n- host: a.test\n",
    "with a byte order mark": "\uFEFF- host: a.test\n",
    "with the line ends of Windows": "- host: a.test\r\n  action: passthrough\r\n",
    "with keys without a value": "- host: a.test\n  action: \n  token_url: ''\n",
    "without any": "",
    "with an empty map": "routes:\n",
  };
  for (const plugin of ["token-exchange", "token-broker"])
    for (const [name, text] of Object.entries(forms)) {
      const form = plugin === "token-broker" ? text.replace("token_url", "token_endpoint") : text;
      test(`of ${plugin}, ${name}`, async () => {
        const { code, stderr } = await runWith("check", config(plugin), {
          files: { "routes.yaml": form },
        });
        expect(code, stderr).toBe(0);
      });
    }
});
