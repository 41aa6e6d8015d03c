import { describe, expect, test } from "vitest";
import {
  compileHostGlob,
  compileSkipHosts,
  HostMatcher,
} from "../../../src/pattern/host-pattern.ts";

describe("compileHostGlob", () => {
  test.each([
    ["example.com", ["example.com", "EXAMPLE.com"], ["a.example.com", "example.comx"]],
    ["Example.COM.", ["example.com"], []],
    ["*.example.com", ["a.example.com", ".example.com"], ["example.com", "a.b.example.com"]],
    ["*.allowed.test", ["evil.allowed.test"], ["evilapi.allowed.test.evil", "xallowed.test"]],
    ["**.example.com", ["a.example.com", "a.b.example.com"], ["example.com", "a.example.org"]],
    ["**", ["a", "a.b.c", ""], []],
    ["*", ["a", ""], ["a.b"]],
    ["api-?.test", ["api-1.test"], ["api-.test", "api-12.test", "api-..test"]],
    ["a?b", ["axb"], ["a.b"]],
    ["[ab]x", ["ax", "bx"], ["cx", "x"]],
    ["[a-c]x", ["ax", "cx"], ["dx"]],
    ["[!a-c]x", ["dx"], ["ax"]],
    ["n[a-c0-9]", ["na", "n7"], ["nd"]],
    ["{a,b}.test", ["a.test", "b.test"], ["c.test", "a,b.test"]],
    ["{api,*.cdn}.test", ["api.test", "x.cdn.test"], ["x.test", "y.x.cdn.test"]],
    ["{a,{b,c}d}", ["a", "bd", "cd"], ["d", "ad"]],
    ["{a,}b", ["ab", "b"], ["a"]],
    ["a\\*b", ["a*b"], ["axb"]],
    ["a,b", ["a,b"], ["a"]],
    ["bücher.example", ["xn--bcher-kva.example"], ["bucher.example"]],
    ["::FFFF:10.0.0.1", ["10.0.0.1"], []],
    ["2001:DB8::0:1", ["2001:db8::1"], []],
  ])("%s", (pattern, matching, others) => {
    const glob = compileHostGlob(pattern);
    expect(matching.filter((host) => !glob.matches(host))).toEqual([]);
    expect(others.filter((host) => glob.matches(host))).toEqual([]);
    expect(glob.source).toBe(pattern);
  });

  test.each([
    ["", /empty/],
    ["[invalid", /not closed/],
    ["{a,b", /not closed/],
    ["{a,{b}", /not closed/],
    ["[]", /bracket is empty/],
    ["[!]", /bracket is empty/],
    ["[z-a]", /backwards/],
    ["a*\\", /backslash/],
    ["*.bücher", /xn--/],
    ["a".repeat(1025), /too long/],
  ])("refuses %j", (pattern, reason) => {
    expect(() => compileHostGlob(pattern)).toThrow(reason);
  });

  test("a pattern made to backtrack comes back", () => {
    const glob = compileHostGlob(`${"**a".repeat(60)}x`);
    expect(glob.matches(`${"a".repeat(250)}bx`)).toBe(false);
  });
});

describe("HostMatcher", () => {
  test("says which pattern matched, names first", () => {
    const matcher = new HostMatcher(["*.test", "a.test"]);
    expect([matcher.find("a.test"), matcher.find("b.test"), matcher.find("b.org")]).toEqual([
      "a.test",
      "*.test",
      undefined,
    ]);
  });
});

describe("compileSkipHosts", () => {
  test.each(["", "   ", "*", "**", "*.*", "[", "otel-collector:8335"])("refuses %j", (pattern) => {
    expect(() => compileSkipHosts([pattern])).toThrow(/skip_hosts|host pattern/);
  });

  test("a glob stays in its label", () => {
    const skip = compileSkipHosts(["otel-collector*", "*.ns.svc.cluster.local"]);
    const hosts = [
      "otel-collector-v2",
      "otel-collector.ns.svc",
      "foo-otel-collector",
      "a.ns.svc.cluster.local",
      "a.b.ns.svc.cluster.local",
    ];
    expect(hosts.map((host) => skip.matches(host))).toEqual([true, false, false, true, false]);
  });
});
