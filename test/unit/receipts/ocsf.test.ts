/** Decisions as events of OCSF, with the names of its schema. */
import { expect, test } from "vitest";
import { ocsfOf } from "../../../src/receipts/ocsf.ts";

const decision = {
  sequence: 7,
  previous: "0",
  at: "2026-11-29T20:00:00.000Z",
  decision: "deny",
  direction: "outbound",
  session: "s1",
  request: "r1",
  client: "::1",
  binary: "/usr/bin/curl",
  subject: "alice",
  clientId: "app",
  host: "api.example:8443",
  method: "GET",
  path: "/v1",
  status: 403,
  code: "policy.forbidden",
  reason: "no",
  steps: [
    { plugin: "jwt-validation", action: "allow", reason: "authorized" },
    { plugin: "egress-policy", action: "deny", reason: "host", details: { entry: "e", rule: "r" } },
  ],
  hash: "abc",
};
const eventOf = (over: object): object | undefined =>
  ocsfOf(JSON.stringify({ ...decision, ...over }), "1.0.0");

test("a refused request is HTTP Activity, with everything that the log says of it", () => {
  expect(eventOf({})).toEqual({
    class_uid: 4002,
    category_uid: 4,
    activity_id: 3,
    type_uid: 400_203,
    time: Date.parse(decision.at),
    severity_id: 2,
    action_id: 2,
    disposition_id: 2,
    status_id: 2,
    status_code: "policy.forbidden",
    status_detail: "no",
    message: "no",
    metadata: {
      version: "1.3.0",
      product: { name: "authbridge-proxy", vendor_name: "authbridge-proxy", version: "1.0.0" },
      profiles: ["security_control", "host"],
      log_name: "audit",
      original_time: decision.at,
      sequence: 7,
      uid: "abc",
      correlation_uid: "s1",
    },
    actor: {
      user: { name: "alice", uid: "alice" },
      app_uid: "app",
      process: { file: { path: "/usr/bin/curl", name: "curl", type_id: 1 } },
    },
    src_endpoint: { ip: "::1" },
    dst_endpoint: { hostname: "api.example", port: 8443 },
    http_request: {
      http_method: "GET",
      url: { hostname: "api.example", port: 8443, path: "/v1" },
      uid: "r1",
    },
    http_response: { code: 403 },
    firewall_rule: { name: "egress-policy/e/r", type: "egress-policy", desc: "host" },
    unmapped: { decision: "deny", direction: "outbound" },
  });
});

test.each([
  [
    { method: "CONNECT", host: "[2001:db8::1]:443" },
    { class_uid: 4002, activity_id: 1, dst_endpoint: { ip: "2001:db8::1", port: 443 } },
  ],
  [{ method: "PURGE" }, { class_uid: 4002, activity_id: 99, activity_name: "PURGE" }],
  [
    { method: "", decision: "exempt" },
    { class_uid: 4001, activity_id: 1, disposition_id: 16 },
  ],
  [{ method: undefined }, { class_uid: 4001, activity_id: 5 }],
  [
    {
      decision: "allow",
      steps: [
        { plugin: "tool-policy", action: "allow", details: { server: "files", tool: "read" } },
      ],
    },
    {
      class_uid: 6003,
      category_uid: 6,
      type_uid: 600_399,
      action_id: 1,
      api: { operation: "read", service: { name: "files" }, request: { uid: "r1" } },
    },
  ],
])("%j", (over, expected) => {
  expect(eventOf(over)).toMatchObject(expected);
});

test("an actor is somebody, and an endpoint somewhere", () => {
  const nobody = { subject: undefined, clientId: undefined, binary: undefined };
  const bare = { ...nobody, client: undefined, host: undefined, session: undefined };
  for (const key of ["actor", "src_endpoint", "dst_endpoint"]) {
    expect(eventOf(bare)).not.toHaveProperty(key);
  }
  const steps = [{ plugin: "tool-policy", action: "allow", details: { server: "files" } }];
  expect(eventOf({ ...nobody, steps })).toMatchObject({ actor: { session: { uid: "s1" } } });
  expect(eventOf({ ...bare, steps })).toMatchObject({ actor: { app_name: "unknown" } });
});

test("what is no decision, or of no time, is no event", () => {
  for (const text of ["torn", "{}", "null", "7"]) expect(ocsfOf(text, "1")).toBeUndefined();
  for (const over of [{ decision: "toString" }, { at: "yesterday" }, { at: undefined }]) {
    expect(eventOf(over)).toBeUndefined();
  }
});
