import { describe, expect, test } from "vitest";
import { ProxyError } from "../../../src/errors.ts";
import {
  type Destination,
  parseAbsoluteTarget,
  parseAuthority,
  parseHostHeader,
} from "../../../src/net/destination.ts";

function refusal(parse: () => unknown): string {
  try {
    parse();
  } catch (error) {
    if (error instanceof ProxyError && error.code === "request.malformed") {
      return error.message;
    }
    throw error;
  }
  return "accepted";
}

describe("parseAuthority", () => {
  test.each([
    ["api.example.com:443", "api.example.com", 443],
    ["API.Example.COM:443", "api.example.com", 443],
    ["api.example.com.:443", "api.example.com", 443],
    ["under_score.test:1", "under_score.test", 1],
    ["xn--bcher-kva.example:65535", "xn--bcher-kva.example", 65_535],
    ["XN--BCHER-KVA.example:80", "xn--bcher-kva.example", 80],
    ["xn--a.example:80", "xn--a.example", 80],
    ["1and1.com:80", "1and1.com", 80],
    ["2130706433:80", "127.0.0.1", 80],
    ["0x7f000001:80", "127.0.0.1", 80],
    ["0X7F.0.0.1:80", "127.0.0.1", 80],
    ["0177.0.0.1:80", "127.0.0.1", 80],
    ["127.1:80", "127.0.0.1", 80],
    ["10.1.65535:80", "10.1.255.255", 80],
    ["127.0.0.1.:80", "127.0.0.1", 80],
    ["0:80", "0.0.0.0", 80],
    ["4294967295:80", "255.255.255.255", 80],
    ["[::1]:80", "::1", 80],
    ["[2001:DB8:0:0:0:0:0:1]:80", "2001:db8::1", 80],
    ["[::ffff:127.0.0.1]:80", "127.0.0.1", 80],
    ["[::ffff:7f00:1]:80", "127.0.0.1", 80],
    ["[64:ff9b::169.254.169.254]:80", "64:ff9b::a9fe:a9fe", 80],
  ])("reads %s as one canonical host", (text, host, port) => {
    const destination = parseAuthority(text, "tcp");
    expect([destination.host, destination.port]).toEqual([host, port]);
  });

  test.each([
    ["example.com", /no port/],
    ["example.com:", /no port/],
    ["example.com:0", /1 to 65535/],
    ["example.com:65536", /1 to 65535/],
    ["example.com:99999999999999999999", /1 to 65535/],
    ["example.com:+80", /decimal/],
    ["example.com:8 0", /decimal/],
    ["example.com:80/", /decimal/],
    ["example.com:0x50", /1 to 65535|decimal/],
    ["a:b@example.com:80", /user information/],
    [":80", /empty/],
    [".:80", /empty/],
    ["", /empty/],
    ["a..b:80", /empty label/],
    [".a:80", /empty label/],
    ["a..:80", /empty label/],
    [`${"a".repeat(64)}.test:80`, /longer than 63/],
    [`${"a.".repeat(126)}ab:80`, /longer than 253/],
    ["exa%6dple.com:80", /percent/],
    ["api。allowed。test:443", /ASCII/],
    ["ａpi.allowed.test:443", /ASCII/],
    ["bücher.example:443", /ASCII/],
    ["exam ple.com:80", /space/],
    ["example.com\0:80", /control/],
    ["example.com\\evil:80", /not allowed/],
    ["*.example.com:80", /not allowed/],
    ["::1:80", /empty/],
    ["[::1:80", /unclosed/],
    ["[::1]80", /after the bracketed/],
    ["[fe80::1%25eth0]:80", /zone/],
    ["[127.0.0.1]:80", /IPv6/],
    ["[]:80", /IPv6/],
    ["256.256.256.256:80", /not an IPv4/],
    ["1.2.3.4.5:80", /not an IPv4/],
    ["foo.1:80", /not an IPv4/],
    ["08.0.0.1:80", /not an IPv4/],
    ["0x:80", /not an IPv4/],
    ["4294967296:80", /not an IPv4/],
  ])("refuses %s", (text, reason) => {
    expect(refusal(() => parseAuthority(text, "tcp"))).toMatch(reason);
  });

  test("takes the default port only when it is given one", () => {
    expect(parseAuthority("a.test", "https", 443).port).toBe(443);
  });

  test("gives a frozen value that says whether it is an address", () => {
    const destination = parseAuthority("[::1]:443", "https");
    expect(Object.isFrozen(destination)).toBe(true);
    expect([destination.isAddress, parseAuthority("a.test:1", "tcp").isAddress]).toEqual([
      true,
      false,
    ]);
  });
});

describe("a destination", () => {
  const spell = (d: Destination) => [d.authority, d.hostHeader, d.origin];
  test.each([
    ["a.test:443", "https", ["a.test:443", "a.test", "https://a.test"]],
    ["a.test:80", "https", ["a.test:80", "a.test:80", "https://a.test:80"]],
    ["a.test:443", "tcp", ["a.test:443", "a.test:443", "tcp://a.test:443"]],
    ["[::1]:80", "http", ["[::1]:80", "[::1]", "http://[::1]"]],
  ] as const)("%s over %s spells its authority, Host and origin", (text, scheme, expected) => {
    expect(spell(parseAuthority(text, scheme))).toEqual(expected);
  });

  test("equals another spelling of the same host and port whatever the scheme", () => {
    const a = parseAuthority("EXAMPLE.com.:443", "tcp");
    expect(a.equals(parseHostHeader("example.com", "https"))).toBe(true);
    expect(a.equals(parseHostHeader("example.com", "http"))).toBe(false);
    expect(a.with({ scheme: "https" }).origin).toBe("https://example.com");
  });
});

describe("parseAbsoluteTarget", () => {
  test.each([
    ["http://a.test", "http://a.test", "/"],
    ["http://a.test?q=/x", "http://a.test", "/?q=/x"],
    ["HTTP://A.test:80/", "http://a.test", "/"],
    ["https://a.test:8443/x", "https://a.test:8443", "/x"],
    ["http://a.test/%2e%2e/a|b{c}?d=\\|", "http://a.test", "/%2e%2e/a|b{c}?d=\\|"],
    ["http://a.test//x/../y", "http://a.test", "//x/../y"],
    ["http://a.test:/x", "http://a.test", "/x"],
    ["http://[::1]:8080?x", "http://[::1]:8080", "/?x"],
    ["http://a.test/u@b:c", "http://a.test", "/u@b:c"],
  ])("keeps the path of %s byte for byte", (target, origin, path) => {
    const parsed = parseAbsoluteTarget(target);
    expect([parsed.destination.origin, parsed.path]).toEqual([origin, path]);
  });

  test.each([
    ["/path", /absolute form/],
    ["*", /absolute form/],
    ["a.test:80", /absolute form/],
    ["ftp://a.test/", /scheme/],
    ["://a.test/", /scheme/],
    ["http:///x", /empty/],
    ["http://www.allowed.test@evil.test/", /user information/],
    ["http://u:p@evil.test/", /user information/],
    ["http://a.test/#x", /fragment/],
    ["http://a.test\\@evil.test/", /backslash/],
    ["http://a.test/public\\..\\admin", /backslash/],
    ["http://a.test/a b", /space/],
    ["http://a.test/\u0001", /control/],
    ["http://a.test/é", /ASCII/],
    ["http://a.test:80:80/", /decimal/],
  ])("refuses %s", (target, reason) => {
    expect(refusal(() => parseAbsoluteTarget(target))).toMatch(reason);
  });
});
