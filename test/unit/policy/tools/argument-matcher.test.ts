import { describe, expect, test } from "vitest";
import { AddressSet } from "../../../../src/net/address.ts";
import {
  type ArgumentConditions,
  compileConditions,
} from "../../../../src/policy/tools/argument-matcher.ts";

const nothing = { addresses: new AddressSet(), hosts: new Set<string>() };

function verdict(conditions: ArgumentConditions, value: unknown, exceptions = nothing) {
  return compileConditions(conditions).map((condition) => condition.test(value, exceptions))[0];
}

describe("url", () => {
  const url = { schemes: ["https"], hosts: ["httpbin.org", "*.weather.gov"] };

  test.each([
    "https://httpbin.org/get",
    "https://httpbin.org",
    "https://httpbin.org:443/a?b=c#d",
    "HTTPS://HTTPBIN.ORG/",
    "https://api.weather.gov/points/1,2",
    "https://httpbin.org/@user?a=b@c",
  ])("%s matches", (text) => {
    expect(verdict({ url }, text)).toBe("match");
  });

  test.each([
    ["MCP-10: a longer name", "https://httpbin.org.evil.test/"],
    ["MCP-10: the host as user name", "https://httpbin.org@evil.test/"],
    ["MCP-10: a user name behind a fragment", "https://httpbin.org#@evil.test/"],
    ["MCP-10: a user name behind a query", "https://httpbin.org?@evil.test/"],
    ["MCP-10: no scheme", "//evil.test"],
    ["MCP-10: no slashes", "https:evil.test"],
    ["no slashes, allowed host", "https:httpbin.org"],
    ["one slash", "https:/httpbin.org/"],
    ["three slashes", "https:///httpbin.org/"],
    ["a backslash", "https:\\\\httpbin.org/"],
    ["a backslash behind the host", "https://httpbin.org\\@evil.test/"],
    ["credentials", "https://user:pw@httpbin.org/"],
    ["an empty user name", "https://@httpbin.org/"],
    ["white space before", " https://httpbin.org/"],
    ["white space behind", "https://httpbin.org/ "],
    ["a tab inside", "https://httpbin\t.org/"],
    ["a line end inside", "https://httpbin.org\n.evil.test/"],
    ["another scheme", "http://httpbin.org/"],
    ["another port", "https://httpbin.org:8443/"],
    ["two labels for one star", "https://a.b.weather.gov/"],
    ["the bare domain", "https://weather.gov/"],
    ["a root dot", "https://httpbin.org./"],
    ["ideographic dots", "https://httpbin。org/"],
    ["a percent in the host", "https://httpbin%2eorg/"],
    ["another name in the query", "https://evil.test/?https://httpbin.org/"],
    ["a fragment before the host", "https://evil.test#@httpbin.org/"],
    ["dot segments", "https://httpbin.org/a/../b"],
    ["a port out of range", "https://httpbin.org:99999/"],
    ["a javascript URL", "javascript:alert(1)"],
    ["nothing", ""],
    ["a list", ["https://httpbin.org/"]],
    ["an object", { href: "https://httpbin.org/" }],
    ["a number", 1],
    ["null", null],
  ])("%s does not", (_name, value) => {
    expect(verdict({ url }, value)).not.toBe("match");
  });

  test("a path prefix ends at a slash, and odd paths are not below it", () => {
    const below = { ...url, path_prefix: "/v1/" };
    const match = (path: string) => verdict({ url: below }, `https://httpbin.org${path}`);
    expect(["/v1", "/v1/", "/v1/a?x=../../b"].map(match)).toEqual(["match", "match", "match"]);
    expect(["/v10", "/", "/V1/a"].map(match)).toEqual(["no", "no", "no"]);
    for (const path of ["/v1/../b", "/v1/%2e%2e/b", "/v1/..%2fb", "/v1//b", "/v1/..;/b", "/v1/%00"])
      expect(match(path)).toBe("unreadable");
  });

  test("a pattern for every host grants no private address, unless the rule names it", () => {
    const any = { schemes: ["http"], hosts: ["**"], ports: [80, 8080] };
    expect(verdict({ url: any }, "http://169.254.169.254/latest")).toBe("no");
    expect(verdict({ url: any }, "http://localhost:8080/")).toBe("no");
    expect(verdict({ url: any }, "http://10.1.2.3/")).toBe("no");
    const exceptions = {
      addresses: AddressSet.parse(["10.0.0.0/8"]),
      hosts: new Set(["localhost"]),
    };
    expect(verdict({ url: any }, "http://10.1.2.3/", exceptions)).toBe("match");
    expect(verdict({ url: any }, "http://localhost:8080/", exceptions)).toBe("match");
    expect(verdict({ url: any }, "http://[::1]/", exceptions)).toBe("no");
  });
});

describe("path", () => {
  const path = { root: "/work" };

  test.each([
    "/work",
    "/work/a.txt",
    "/work//a",
    "/work/./a",
    "/work/a/../b",
    "/work/..a",
    "/work/a b",
  ])("%s matches", (text) => {
    expect(verdict({ path }, text)).toBe("match");
  });

  test.each([
    "/work/../etc/passwd",
    "/work/link/../../etc/passwd",
    "/work/../work/a",
    "/workshop/a",
    "/etc/passwd",
    "/../work/a",
    "/",
    "work/a",
    "../etc/passwd",
    "~/a",
    "",
    "file:///work/a",
    "FILE:/work/a",
    "//work/a",
    "/work\\..\\etc",
    "/work/%2e%2e/etc",
    "/work/..%2fetc",
    "/work/\u0000",
    "/work/\n",
    "/Work/a",
    "C:\\work",
    ["/work/a"],
    7,
  ])("MCP-11: %j does not", (value) => {
    expect(verdict({ path }, value)).not.toBe("match");
  });
});

describe("the others", () => {
  test.each<[ArgumentConditions, unknown, string]>([
    [{ cidr: ["10.0.0.0/8"] }, "10.1.2.3", "match"],
    [{ cidr: ["10.0.0.0/8"] }, "10.1.0.0/16", "match"],
    [{ cidr: ["10.0.0.0/8"] }, "::ffff:10.1.2.3", "match"],
    [{ cidr: ["10.0.0.0/8"] }, "10.0.0.0/7", "no"],
    [{ cidr: ["10.0.0.0/8"] }, "11.0.0.1", "no"],
    [{ cidr: ["10.0.0.0/8"] }, "010.1.2.3", "unreadable"],
    [{ cidr: ["10.0.0.0/8"] }, "10.1", "unreadable"],
    [{ cidr: ["fd00::/8"] }, "fd00::1", "match"],
    [{ enum: ["a", 1, true, null] }, "a", "match"],
    [{ enum: ["a", 1, true, null] }, 1, "match"],
    [{ enum: ["a", 1] }, "1", "no"],
    [{ enum: ["a"] }, "A", "no"],
    [{ enum: ["a"] }, ["a"], "unreadable"],
    [{ enum: ["a"] }, 1, "unreadable"],
    [{ pattern: "[a-z]+" }, "abc", "match"],
    [{ pattern: "[a-z]+" }, "abc1", "no"],
    [{ pattern: "[a-z]+" }, "abc\n", "no"],
    [{ pattern: "a|b" }, "ab", "no"],
    [{ pattern: "(a+)+" }, `${"a".repeat(60_000)}b`, "no"],
    [{ pattern: ".*" }, "a".repeat(70_000), "unreadable"],
    [{ pattern: "." }, "\ud800", "unreadable"],
    [{ pattern: "1" }, 1, "unreadable"],
    [{ max_length: 2 }, "ab", "match"],
    [{ max_length: 2 }, "😀😀", "match"],
    [{ max_length: 2 }, "abc", "no"],
    [{ max_length: 2 }, ["a"], "unreadable"],
    [{ max_items: 2 }, [1, 2], "match"],
    [{ max_items: 2 }, [1, 2, 3], "no"],
    [{ max_items: 2 }, "ab", "unreadable"],
  ])("%j of %j", (conditions, value, expected) => {
    expect(verdict(conditions, value)).toBe(expected);
  });

  test.each([
    [{ pattern: "(a" }, /linear time/],
    [{ pattern: "(?=a)b" }, /linear time/],
    [{ pattern: "(a)\\1" }, /linear time/],
    [{ cidr: ["10.0.0.0/33"] }, /prefix length/],
    [{ url: { schemes: ["https"], hosts: ["[a"] } }, /\[a/],
  ])("%j is refused when it is compiled", (conditions, message) => {
    expect(() => compileConditions(conditions)).toThrow(message);
  });
});
