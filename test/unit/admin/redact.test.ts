import { array, assert, constantFrom, property, string } from "fast-check";
import { describe, expect, test } from "vitest";
import { redact } from "../../../src/admin/redact.ts";

describe("M17: redaction by key", () => {
  test.each([
    ["client_secret", { client_secret: "x" }, { client_secret: "[REDACTED]" }],
    ["judge_bearer", { judge_bearer: "x" }, { judge_bearer: "[REDACTED]" }],
    ["api_key", { api_key: "x" }, { api_key: "[REDACTED]" }],
    ["capitals", { ClientSecret: "x" }, { ClientSecret: "[REDACTED]" }],
    ["nested", { a: { jwt_password: "x", b: 1 } }, { a: { jwt_password: "[REDACTED]", b: 1 } }],
    ["in a list", [{ token: "x" }, "y"], [{ token: "[REDACTED]" }, "y"]],
    ["a list of secrets", { token: ["x", "y"] }, { token: ["[REDACTED]", "[REDACTED]"] }],
    ["numbers stay", { token: 12345, secret: true }, { token: 12345, secret: true }],
    [
      "containers are looked into",
      { token: { access_token: "x", expires_in: 3 } },
      { token: { access_token: "[REDACTED]", expires_in: 3 } },
    ],
    ["other keys stay", { token_url: "https://idp/token" }, { token_url: "https://idp/token" }],
    ["empty stays empty", { secret: "" }, { secret: "" }],
    [
      "credentials in a URL",
      { parent: "http://user:pa55@proxy:3128/x" },
      { parent: "http://[REDACTED]@proxy:3128/x" },
    ],
    [
      "credentials with an @ in the password",
      { parent: "http://user:pa@55@proxy:3128" },
      { parent: "http://[REDACTED]@proxy:3128" },
    ],
    [
      "credentials without a scheme",
      { http_proxy: "user:pa55@proxy:3128", no_proxy: "a.test:80,b.test", mail: "a@b.test" },
      { http_proxy: "[REDACTED]@proxy:3128", no_proxy: "a.test:80,b.test", mail: "a@b.test" },
    ],
    [
      "a signed URL",
      { bundle_url: "https://store.test/b.tar.gz?v=1&sig=abc%2F&x=2#y" },
      { bundle_url: "https://store.test/b.tar.gz?v=1&sig=[REDACTED]&x=2#y" },
    ],
    [
      "a private key under any name",
      { pem: "-----BEGIN EC PRIVATE KEY-----\nabc" },
      { pem: "[REDACTED]" },
    ],
    [
      "inline mappings",
      { mappings: { "api.example": "sk-1", other: { value: "sk-2" } } },
      { mappings: { "api.example": "[REDACTED]", other: { value: "[REDACTED]" } } },
    ],
    [
      "the path of a webhook, which is its secret",
      {
        webhook: { url: "https://hooks.chat.test/services/T0/B0/x", format: "slack" },
        url: "http://a/b",
      },
      {
        webhook: { url: "https://hooks.chat.test/[REDACTED]", format: "slack" },
        url: "http://a/b",
      },
    ],
  ])("%s", (_name, given, expected) => {
    const before = structuredClone(given);
    expect(redact(given)).toEqual(expected);
    expect(given).toEqual(before);
  });

  test("no depth of nesting ends the process", () => {
    let deep: unknown = "x";
    for (let level = 0; level < 100_000; level += 1) deep = { deep };
    expect(() => redact(deep)).not.toThrow();
  });

  test("whatever stands around it, a string under a secret's key is not shown", () => {
    assert(
      property(
        constantFrom("secret", "client_secret", "password", "token", "bearer", "api_key"),
        array(
          string().filter((key) => key !== "__proto__"),
          { maxLength: 6 },
        ),
        (name, path) => {
          let value: unknown = { [name]: "canary-5521" };
          for (const key of path) value = key.length % 2 === 0 ? { [key]: value } : [value];
          expect(JSON.stringify(redact(value))).not.toContain("canary-5521");
        },
      ),
      { interruptAfterTimeLimit: 1_500, numRuns: 200 },
    );
  });
});
