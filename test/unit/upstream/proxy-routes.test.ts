import { describe, expect, test } from "vitest";
import { parseAddress } from "../../../src/net/address.ts";
import { parseAbsoluteTarget, parseAuthority } from "../../../src/net/destination.ts";
import { NoProxy } from "../../../src/net/no-proxy.ts";
import { HostMatcher } from "../../../src/pattern/host-pattern.ts";
import type { ParentProxy } from "../../../src/upstream/parent/parent-proxy.ts";
import {
  ProxyRoutes,
  type ProxyRoutesOptions,
  type Way,
} from "../../../src/upstream/proxy-routes.ts";

function parent(name: string): ParentProxy {
  return {
    kind: "http",
    destination: parseAuthority(`${name}.test:3128`, "http"),
    connectBy: "name",
    credentials: undefined,
    label: name,
  };
}

const [plain, secure, special] = [parent("plain"), parent("secure"), parent("special")];
const to = (url: string) => parseAbsoluteTarget(url).destination;
const route = (pattern: string, way: Way) => ({ hosts: new HostMatcher([pattern]), way });

function routes(over: Partial<ProxyRoutesOptions> = {}): ProxyRoutes {
  const noProxy = NoProxy.parse("");
  return new ProxyRoutes({ httpProxy: plain, httpsProxy: secure, routes: [], noProxy, ...over });
}

describe("the way to a destination", () => {
  test.each([
    ["http://a.test/", plain],
    ["https://a.test/", secure],
  ])("%s: the parent of its scheme", (url, way) => {
    expect(routes().decide(to(url))).toBe(way);
  });

  test("a tunnel goes through the parent for https", () => {
    expect(routes().decide(parseAuthority("a.test:5432", "tcp"))).toBe(secure);
  });

  test("without a parent for the scheme it is direct", () => {
    expect(routes({ httpProxy: undefined }).decide(to("http://a.test/"))).toBe("direct");
  });

  test("no_proxy beats the parents, and a route beats no_proxy", () => {
    const noProxy = NoProxy.parse(".corp.test,127.0.0.0/8");
    const listed = routes({ noProxy, routes: [route("git.corp.test", special)] });
    expect(listed.decide(to("https://wiki.corp.test/"))).toBe("direct");
    expect(listed.decide(to("https://127.0.0.1/"))).toBe("direct");
    expect(listed.decide(to("https://git.corp.test/"))).toBe(special);
  });

  test("the first route that matches counts", () => {
    const both = [route("*.corp.test", "direct"), route("git.corp.test", special)];
    expect(routes({ routes: both }).decide(to("http://git.corp.test/"))).toBe("direct");
  });
});

describe("addresses of a name", () => {
  const addresses = ["10.0.0.1", "192.0.2.1"].flatMap((text) => parseAddress(text) ?? []);
  const shown = (from: ProxyRoutes, url: string): string[] =>
    from.directAmong(to(url), addresses).map(String);
  const noProxy = NoProxy.parse("10.0.0.0/8");

  test("that no_proxy exempts are direct, and only they", () => {
    expect(shown(routes({ noProxy }), "https://a.test/")).toEqual(["10.0.0.1"]);
  });

  test.each([
    ["no range is listed", routes(), "https://a.test/"],
    [
      "a route names the host",
      routes({ noProxy, routes: [route("a.test", special)] }),
      "https://a.test/",
    ],
    ["the destination is an address", routes({ noProxy }), "https://10.0.0.1/"],
  ])("do not matter where %s", (_what, from, url) => {
    expect(shown(from, url)).toEqual([]);
  });
});

test("every parent that may be used is listed once", () => {
  const ways = [route("a.test", special), route("b.test", plain), route("c.test", "direct")];
  expect(routes({ httpsProxy: undefined, routes: ways }).parents).toEqual([plain, special]);
});
