import { describe, expect, test } from "vitest";
import { commandsFor, missingRule } from "../../../src/policy/missing-rule.ts";

const host = "api.test";
const port = 443;

describe("the rule that a refusal is about", () => {
  test("is the host, with the request and the executable where they are known", () => {
    const code = "endpoint-not-allowed" as const;
    expect(missingRule({ host, port, code })).toEqual({ host, port });
    const asked = { host, port, code, binary: "/usr/bin/curl", method: "get", path: "/items/7" };
    expect(missingRule(asked)).toEqual({
      host,
      port,
      method: "GET",
      path: "/items/*",
      binary: "/usr/bin/curl",
    });
  });

  test("is one of the endpoint, or the executable of the entry, where they are there", () => {
    const known = { host, port, entry: "api" };
    const request = { method: "POST", path: "/a", protocol: "rest" } as const;
    const rule = "endpoints[0].rules";
    expect(missingRule({ ...known, ...request, rule, code: "not-permitted" })).toEqual({
      entry: "api",
      endpoint: "endpoints[0]",
      host,
      port,
      method: "POST",
      path: "/a",
    });
    const binary = "/usr/bin/wget";
    expect(missingRule({ ...known, binary, code: "binary-not-allowed" })).toEqual({
      ...known,
      binary,
    });
  });

  test("is none where no rule would help", () => {
    const request = { method: "GET", path: "/" };
    expect(missingRule({ host, port, ...request, entry: "a", code: "deny-rule" })).toBeUndefined();
    const metadata = { host: "169.254.169.254", port: 80, code: "endpoint-not-allowed" } as const;
    expect(missingRule(metadata)).toBeUndefined();
  });

  test("is added by commands that can be pasted", () => {
    expect(commandsFor({ host: "2001:db8::1", port: 8443 }).once).toBe(
      "authbridge-proxy run --allow [2001:db8::1]:8443 -- COMMAND",
    );
  });
});
