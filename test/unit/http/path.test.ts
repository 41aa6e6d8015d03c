import { describe, expect, test } from "vitest";
import { canonicalPath } from "../../../src/http/path.ts";

describe("canonicalPath", () => {
  test.each([
    ["", "/"],
    ["/", "/"],
    ["/a/b", "/a/b"],
    ["/a/b/", "/a/b/"],
    ["/a?x=/../y", "/a"],
    ["/a/./b", "/a/b"],
    ["/a/../b", "/b"],
    ["/a/b/..", "/a/"],
    ["/a/b/.", "/a/b/"],
    ["//", "/"],
    ["//admin", "/admin"],
    ["/public//secret", "/public/secret"],
    ["/public/../admin", "/admin"],
    ["/files/hello%20world.txt", "/files/hello%20world.txt"],
    ["/%61%7e%2D", "/a~-"],
    ["/users/%40alice", "/users/@alice"],
    ["/caf%c3%a9", "/caf%C3%A9"],
    ["/a|b{c}", "/a%7Cb%7Bc%7D"],
    ["/a/%2520b", "/a/%2520b"],
    ["/v1/m.x:run", "/v1/m.x:run"],
    ["/a/...", "/a/..."],
  ])("reads %s as %s and nothing else", (raw, path) => {
    expect(canonicalPath(raw)).toEqual({ path });
  });

  test.each([
    ["/public/..%2fsecret", /slash is percent/],
    ["/public/%5C..%5cadmin", /backslash is percent/],
    ["/public\\..\\admin", /backslash/],
    ["/public/..;/admin", /parameters/],
    ["/public/.;x/admin", /parameters/],
    ["/public/%2e%2e;/admin", /parameters/],
    ["/public/..%3bx/admin", /parameters/],
    ["/public/%2e%2e/admin", /dot segment is percent/],
    ["/public/.%2E", /dot segment is percent/],
    ["/public/%252e%252e/admin", /twice/],
    ["/public/%252fadmin", /twice/],
    ["/a%00b", /control/],
    ["/a%0d%0a", /control/],
    ["/a\nb", /control/],
    ["/a b", /space/],
    ["/a%", /two hexadecimal/],
    ["/a%4", /two hexadecimal/],
    ["/a%zz", /two hexadecimal/],
    ["/%c0%ae%c0%ae/admin", /UTF-8/],
    ["/%e0%80%af", /UTF-8/],
    ["/%c3x%a9", /UTF-8/],
    ["/%c3%20%a9", /UTF-8/],
    ["/%ff", /UTF-8/],
    ["/a/../..", /root/],
    ["/public//../admin", /empty segment/],
    ["/a#b", /fragment/],
    ["/caf\xe9", /ASCII/],
    ["*", /begin with a slash/],
    ["a/b", /begin with a slash/],
  ])("says that %j has two readings", (raw, reason) => {
    expect(canonicalPath(raw).ambiguous).toMatch(reason);
  });

  test("resolves what it can of an ambiguous path", () => {
    expect(canonicalPath("/public/%2e%2e/secret").path).toBe("/secret");
  });

  test.each([
    ["/admin;x=/public", "/admin;x=/public", "/admin/public"],
    ["/healthz;/admin", "/healthz;/admin", "/healthz/admin"],
    ["/a%3Bx", "/a%3Bx", "/a"],
  ])("gives both readings of the parameters in %s", (raw, path, withoutParameters) => {
    expect(canonicalPath(raw)).toEqual({ path, withoutParameters });
  });
});
