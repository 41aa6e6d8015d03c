import { describe, expect, test } from "vitest";
import { readPath } from "../../../src/http/path.ts";

describe("readPath", () => {
  test.each([
    ["", "/"],
    ["/", "/"],
    ["/a/b", "/a/b"],
    ["/a/b/", "/a/b/"],
    ["/a?x=/../y", "/a"],
    ["/files/hello%20world.txt", "/files/hello%20world.txt"],
    ["/%61%7e%2D", "/a~-"],
    ["/users/%40alice", "/users/@alice"],
    ["/caf%c3%a9", "/caf%C3%A9"],
    ["/a|b{c}", "/a%7Cb%7Bc%7D"],
    ["/a/%2520b", "/a/%2520b"],
    ["/v1/m.x:run", "/v1/m.x:run"],
    ["/a/...", "/a/..."],
    ["/a%3ax", "/a:x"],
  ])("reads %s as %s and nothing else", (raw, path) => {
    expect(readPath(raw)).toEqual({ readings: [path], remote: [], plain: path });
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
    ["/a/./b", /dot segment/],
    ["/a/../b", /dot segment/],
    ["/a/b/..", /dot segment/],
    ["/a/b/.", /dot segment/],
    ["/a#b", /fragment/],
    ["/caf\xe9", /ASCII/],
    ["*", /begin with a slash/],
    ["a/b", /begin with a slash/],
  ])("says that %j has two readings", (raw, reason) => {
    expect(readPath(raw).ambiguous).toMatch(reason);
  });

  test("takes an encoded slash for data where it is told to, unless dots stand beside it", () => {
    const read = (raw: string) => readPath(raw, { slashIsData: true });
    expect(read("/a%2fb")).toEqual({ readings: ["/a%2Fb"], remote: [], plain: "/a%2Fb" });
    for (const raw of ["/a/..%2fb", "/a%2F.%2Fb", "/a%2F..;x", "/a%2F%2e%2e"]) {
      expect(read(raw).ambiguous).toMatch(/dot segment stands beside/);
    }
  });

  test.each([
    ["/public/%2e%2e/secret", "/secret"],
    ["/public/..;x/secret", "/secret"],
    ["/a/../../secret", "/secret"],
    ["/public\\..%5csecret", "/secret"],
    ["/public/..%2Fsecret", "/secret"],
    ["/public/%252e%252e%252fsecret;x", "/secret"],
  ])("knows what the most liberal server makes of %s", (raw, path) => {
    expect(readPath(raw).readings).toContain(path);
  });

  test.each([
    ["/a//b", ["/a//b", "/a/b"]],
    ["//admin", ["//admin", "/admin", "/"]],
    ["//x/admin/", ["//x/admin/", "/x/admin/", "/admin/"]],
    ["//", ["//", "/"]],
    ["/admin;x=/public", ["/admin;x=/public", "/admin/public"]],
    ["/healthz;/admin", ["/healthz;/admin", "/healthz/admin"]],
    ["//x;y//z", ["//x;y//z", "/x;y/z", "//x//z", "/x/z", "//z", "/z"]],
  ])("gives every reading of %s, as it is spelt first", (raw, readings) => {
    expect(readPath(raw)).toMatchObject({ readings, plain: expect.not.stringMatching(/;|\/\//) });
  });

  test("keeps %3B as data, with word of servers that do not", () => {
    expect(readPath("/a%3Bx")).toEqual({ readings: ["/a%3Bx"], remote: ["/a"], plain: "/a%3Bx" });
    expect(readPath("/a;x%3By")).toMatchObject({ readings: ["/a;x%3By", "/a"], remote: [] });
  });
});
