import { describe, expect, test } from "vitest";
import { parseSpiffeId, trustDomainOf } from "../../../src/spiffe/spiffe-id.ts";

describe("a SPIFFE ID", () => {
  test.each([
    ["spiffe://example.org", "example.org", ""],
    ["spiffe://example.org/ns/agents/sa/weather", "example.org", "/ns/agents/sa/weather"],
    ["spiffe://a-b_c.9/A.b-C_9", "a-b_c.9", "/A.b-C_9"],
    [`spiffe://${"d".repeat(255)}/x`, "d".repeat(255), "/x"],
  ])("%s is one", (text, trustDomain, path) => {
    expect(parseSpiffeId(text)).toEqual({ text, trustDomain, path });
  });

  test.each([
    ["", "begin with spiffe://"],
    ["https://example.org/x", "begin with spiffe://"],
    ["SPIFFE://example.org/x", "begin with spiffe://"],
    ["spiffe:///x", "no trust domain"],
    ["spiffe://Example.org/x", "trust domain has other characters"],
    ["spiffe://example.org:443/x", "trust domain has other characters"],
    ["spiffe://user@example.org/x", "trust domain has other characters"],
    [`spiffe://${"d".repeat(256)}/x`, "longer than 255"],
    ["spiffe://example.org/", "empty segment or ends in a slash"],
    ["spiffe://example.org//x", "empty segment or ends in a slash"],
    ["spiffe://example.org/x/", "empty segment or ends in a slash"],
    ["spiffe://example.org/../x", "segment of dots"],
    ["spiffe://example.org/./x", "segment of dots"],
    ["spiffe://example.org/x?y", "path has other characters"],
    ["spiffe://example.org/x#y", "path has other characters"],
    ["spiffe://example.org/%41", "path has other characters"],
    ["spiffe://example.org/x\u0000", "path has other characters"],
    [`spiffe://example.org/${"x".repeat(2_048)}`, "longer than 2048"],
  ])("%j is none", (text, why) => {
    expect(parseSpiffeId(text)).toContain(why);
  });

  test.each([
    ["spiffe://example.org", "example.org"],
    ["example.org", "example.org"],
    ["spiffe://example.org/x", undefined],
    ["Example.org", undefined],
    ["", undefined],
  ])("the trust domain of the key %j is %s", (key, domain) => {
    expect(trustDomainOf(key)).toBe(domain);
  });
});
