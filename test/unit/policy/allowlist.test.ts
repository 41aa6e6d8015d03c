import { describe, expect, test } from "vitest";
import type { Allowlist } from "../../../src/policy/allowlist.ts";
import { type AllowlistSource, readAllowlist } from "../../../src/policy/file/allowlist-reader.ts";

function list(source: AllowlistSource): Allowlist {
  const { allowlist, problems } = readAllowlist(source);
  if (allowlist === undefined) throw new Error(JSON.stringify(problems));
  return allowlist;
}

function connect(allowlist: Allowlist, host: string, port = 443): string {
  return allowlist.evaluateConnect({ host, port }).effect;
}

function request(allowlist: Allowlist, host: string, path: string, method = "GET"): string {
  return allowlist.evaluateRequest({ host, port: 443, method, path, query: new Map() }).effect;
}

describe("an allow list", () => {
  const hosts = list({
    allow: ["api.weather.gov", "*.github.com:443", { host: "db.internal", ports: [5432, 5433] }],
  });

  test.each([
    ["api.weather.gov", 80, "allow"],
    ["evil.api.weather.gov", 443, "deny"],
    ["api.github.com", 443, "allow"],
    ["api.github.com", 80, "deny"],
    ["github.com", 443, "deny"],
    ["a.b.github.com", 443, "deny"],
    ["evilgithub.com", 443, "deny"],
    ["db.internal", 5433, "allow"],
    ["db.internal", 443, "deny"],
    ["169.254.169.254", 80, "deny"],
  ])("judges %s:%i as %s", (host, port, effect) => {
    expect(connect(hosts, host, port)).toBe(effect);
  });

  test("that is empty denies everything", () => {
    for (const source of [{}, { allow: [] }, { deny: [] }]) {
      expect(connect(list(source), "example.com")).toBe("deny");
      expect(list(source).isEmpty).toBe(true);
    }
  });

  test("names the item that decides", () => {
    const decision = hosts.evaluateConnect({ host: "api.github.com", port: 443 });
    expect(decision).toMatchObject({ entry: "allow[1]", code: "allowed" });
    expect(decision.grant?.inspect).toBe(false);
  });
});

describe("one path on an allowed host", () => {
  const guarded = list({
    allow: ["api.example.com"],
    deny: [{ host: "api.example.com", paths: ["/admin/**", "/admin"] }],
  });

  test("can be refused: the host stays open, its requests are judged", () => {
    const decision = guarded.evaluateConnect({ host: "api.example.com", port: 443 });
    expect(decision).toMatchObject({ effect: "allow", grant: { inspect: true } });
    expect(request(guarded, "api.example.com", "/public")).toBe("allow");
    expect(request(guarded, "api.example.com", "/admin")).toBe("deny");
    expect(request(guarded, "api.example.com", "/admin/users", "POST")).toBe("deny");
  });

  test("can be the only one that is open", () => {
    const narrow = list({
      allow: [{ host: "api.example.com", methods: ["get"], paths: ["/v1/**"] }],
    });
    expect(narrow.evaluateConnect({ host: "api.example.com", port: 443 }).grant?.inspect).toBe(
      true,
    );
    expect(request(narrow, "api.example.com", "/v1/x")).toBe("allow");
    expect(request(narrow, "api.example.com", "/v1/x", "HEAD")).toBe("allow");
    expect(request(narrow, "api.example.com", "/v1/x", "POST")).toBe("deny");
    expect(request(narrow, "api.example.com", "/v2/x")).toBe("deny");
  });
});

test("deny beats allow, also under an allow-all", () => {
  const { allowlist, problems } = readAllowlist({
    allow: ["*"],
    deny: ["evil.test", "**.evil.test"],
  });
  expect(problems).toMatchObject([{ severity: "warning", path: "allow[0]" }]);
  if (allowlist === undefined) throw new Error("unread");
  expect(connect(allowlist, "good.test")).toBe("allow");
  expect(allowlist.evaluateConnect({ host: "evil.test", port: 443 })).toMatchObject({
    effect: "deny",
    entry: "deny[0]",
  });
  expect(request(allowlist, "a.b.evil.test", "/")).toBe("deny");
});

test.each([
  [{ allow: "api.example.com" }, "must be a list"],
  [{ allow: ["*.com"] }, "TLD wildcard"],
  [{ allow: ["a.example:70000"] }, "between 1 and 65535"],
  [{ allow: ["https://a.example"] }, "host"],
  [{ allow: [{ ports: [443] }] }, "needs host"],
  [{ allow: [{ host: "a.example", path: ["/x"] }] }, "did you mean 'paths'"],
  [{ allow: [{ host: "a.example", paths: [] }] }, "must not be empty"],
  [{ allow: [{ host: "a.example", paths: ["x"] }] }, "must start with"],
  [{ deny: [{ host: "a.example", methods: ["G T"] }] }, "no method name"],
  [{ deny: [null] }, "is empty"],
])("a list with %j is refused", (source, words) => {
  const { allowlist, problems } = readAllowlist(source);
  expect(allowlist).toBeUndefined();
  expect(problems.map(({ message }) => message).join("\n")).toContain(words);
});

test.each([
  [true, "allow", "deny"],
  [false, "deny", "allow"],
])("a list that names GET means HEAD too: %s", (headMatchesGet, listed, refused) => {
  const allow = [{ host: "api.test", methods: ["GET"] }, "open.test"];
  const deny = [{ host: "open.test", methods: ["GET"] }];
  const lists = list({ allow, deny, headMatchesGet });
  expect(request(lists, "api.test", "/", "HEAD")).toBe(listed);
  expect(request(lists, "open.test", "/", "HEAD")).toBe(refused);
});

test("a list cannot name the messages of a WebSocket", () => {
  const { problems } = readAllowlist({ allow: [{ host: "a.test", methods: ["WEBSOCKET_TEXT"] }] });
  expect(problems[0]?.message).toContain("network_policies only");
});
