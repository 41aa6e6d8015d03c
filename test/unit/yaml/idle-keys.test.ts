/** Keys that are written for nothing, as the keys beside them stand. */
import { expect, test } from "vitest";
import { z } from "zod";
import { configSchema } from "../../../src/config/schema.ts";
import { builtinPlugins } from "../../../src/plugins/index.ts";
import { idleKeys, readWhere } from "../../../src/yaml/idle-keys.ts";
import { formatKeyPath } from "../../../src/yaml/problem.ts";

function idle(schema: z.ZodType, written: unknown): string[] {
  const { success, data, error } = schema.safeParse(written);
  if (!success) throw error;
  return idleKeys(schema, written, data).map(({ path }) => formatKeyPath(path));
}

const block = z.strictObject({
  on: z.boolean().default(false),
  wait: readWhere(z.string().default("1s"), "without on: true", ({ on }) => on === true),
});
const schema = z.strictObject({
  one: block.prefault({}),
  many: z.array(z.union([z.string(), block])).default([]),
  named: z.record(z.string(), block).default({}),
});

test.each<[what: string, written: object, found: readonly string[]]>([
  ["a key that is read", { one: { on: true, wait: "2s" } }, []],
  ["one that is not", { one: { wait: "2s" } }, ["one.wait"]],
  ["one that says what is so anyway", { one: { wait: "1s" } }, []],
  ["in lists and unions", { many: ["x", { wait: "2s" }] }, ["many[1].wait"]],
  ["in records", { named: { a: { wait: "2s" } } }, ["named.a.wait"]],
])("%s", (_what, written, found) => {
  expect(idle(schema, written)).toEqual(found);
});

test("what is missing is said", () => {
  const written = { one: { wait: "2s" } };
  expect(idleKeys(schema, written, schema.parse(written))).toEqual([
    { path: ["one", "wait"], message: "has no effect without on: true" },
  ]);
});

const wrapped = (name: string) => (written: object) => {
  const { config = z.never() } = builtinPlugins.find((one) => one.name === name) ?? {};
  return idle(config, written);
};
const file = (written: object): string[] => idle(configSchema, written);
const jwt = (written: object) =>
  wrapped("jwt-validation")({ issuer: "http://idp.test", audience: "a", ...written });
const exchange = (written: object) =>
  wrapped("token-exchange")({ token_url: "http://idp.test", ...written });

type Row = [idle: string[], find: (written: object) => string[], keys: object, needed: object];
test.each<Row>([
  [
    ["session.api_secret_file", "session.api_cors_origins", "session.persist"],
    (keys) => file({ session: keys }),
    {
      api_secret_file: "f",
      api_cors_origins: ["http://a"],
      persist: { path: "p" },
      enabled: false,
    },
    { enabled: true },
  ],
  [
    ["approval.hold", "approval.keep_alive", "approval.max_held", "approval.max_held_per_caller"],
    (keys) => file({ approval: keys }),
    { hold: "1m", keep_alive: "1s", max_held: 1, max_held_per_caller: 1, on_pending: "poll" },
    { on_pending: "hold" },
  ],
  [
    ["telemetry.otlp.sample_ratio", "telemetry.otlp.metrics_interval"],
    (keys) => file({ telemetry: { otlp: { endpoint: "http://c:4318", ...keys } } }),
    { sample_ratio: 0.5, metrics_interval: "1s", traces: false, metrics: false },
    { traces: true, metrics: true },
  ],
  [
    ["upstream_proxy.readiness_timeout", "upstream_proxy.readiness_retry"],
    (keys) => file({ upstream_proxy: keys }),
    { readiness_timeout: "1s", readiness_retry: "1s" },
    { readiness_endpoints: ["http://a"] },
  ],
  [
    ["spiffe.mirror_dir"],
    (keys) => file({ spiffe: keys }),
    { mirror_dir: "/x", mirror_files: false },
    { mirror_files: true },
  ],
  [
    ["reload.debounce"],
    (keys) => file({ reload: keys }),
    { debounce: "1s", enabled: false },
    { enabled: true },
  ],
  [["allowed_hosts"], jwt, { allowed_hosts: ["a"] }, { audience_mode: "per-host" }],
  [
    ["placeholder_ttl", "placeholders_when_away"],
    jwt,
    { placeholder_ttl: "1m", placeholders_when_away: "local" },
    { placeholder_mode: true },
  ],
  [
    ["logout_audiences", "logins_when_away"],
    jwt,
    { logout_audiences: ["a"], logins_when_away: "local" },
    { backchannel_logout: true },
  ],
  [["keycloak_url"], jwt, { keycloak_url: "http://k" }, { keycloak_realm: "r" }],
  [["keycloak_realm"], jwt, { keycloak_realm: "r" }, { keycloak_url: "http://k" }],
  [
    ["dpop.nonce_lifetime"],
    jwt,
    { dpop: { nonce_lifetime: "1m" } },
    { dpop: { nonce_lifetime: "1m", nonce: true } },
  ],
  [
    ["dpop.proof_lifetime"],
    jwt,
    { dpop: { proof_lifetime: "5m", nonce: true } },
    { dpop: { proof_lifetime: "5m" } },
  ],
  [
    ["cors.max_age"],
    jwt,
    { cors: { allowed_origins: ["http://a"], max_age: "1m", preflight: "pass" } },
    { cors: { allowed_origins: ["http://a"], max_age: "1m" } },
  ],
  [
    ["identity.client_auth_method"],
    exchange,
    {
      token_url: "https://a",
      identity: { type: "tls-client-auth", client_auth_method: "client_secret_basic" },
    },
    {
      identity: { type: "client-secret", client_auth_method: "client_secret_basic" },
    },
  ],
  [
    ["identity.assertion_type", "identity.assertion_lifetime"],
    exchange,
    {
      identity: { type: "client-secret", assertion_type: "jwt-bearer", assertion_lifetime: "10s" },
    },
    { identity: { type: "client-secret" } },
  ],
  [
    ["provider_url", "provider_realm"],
    exchange,
    { identity: { type: "client-secret" }, provider_url: "http://k", provider_realm: "r" },
    { token_url: undefined },
  ],
])("%j", (found, find, keys, needed) => {
  expect(find(keys)).toEqual(found);
  expect(find({ ...keys, ...needed })).toEqual([]);
});
