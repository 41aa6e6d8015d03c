/** Blocked and allowed hosts by lists, as a mesh with REGISTRY_ONLY has them: through plain HTTP, CONNECT and the bridge. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { CountingOrigins, type EgressSurface, surfacesOf } from "../support/egress-surfaces.ts";

const lists = {
  allow: ["api.weather.gov", "httpbin.org"],
  deny: [{ host: "httpbin.org", paths: ["/status/**", "/admin"] }],
};

let origins: CountingOrigins;
let proxy: BridgeProxy;
let empty: BridgeProxy;
let surfaces: readonly EgressSurface[];

function start(config: object): Promise<BridgeProxy> {
  const names = ["api.weather.gov", "httpbin.org", "malicious.com"];
  return BridgeProxy.start({
    ports: [origins.tlsPort],
    originCa: origins.authority.caPem,
    otherwise: "deny",
    plugins: [{ name: "egress-policy", config }],
    names,
  });
}

beforeAll(async () => {
  origins = await CountingOrigins.start(["api.weather.gov", "httpbin.org"]);
  proxy = await start(lists);
  empty = await start({ allow: [] });
  surfaces = surfacesOf(proxy, origins);
});
afterAll(async () => {
  await proxy?.close();
  await empty?.close();
  origins?.close();
});

const through = ["plain HTTP", "CONNECT", "bridged HTTP/1.1", "bridged HTTP/2"] as const;

async function reach(
  name: string,
  host: string,
  path: string,
  from: readonly EgressSurface[] = surfaces,
): Promise<string> {
  const arrival = await from.find((surface) => surface.name === name)?.reach({ host, path });
  if (arrival === undefined) throw new Error(`no surface ${name}`);
  return arrival.arrived ? `reached ${arrival.path}` : String(arrival.status);
}

describe.each(through)("through %s", (name) => {
  test.each([
    ["an allowed host", "api.weather.gov", "/points/1", "reached /points/1"],
    ["a blocked host", "malicious.com", "/", "403"],
    ["the metadata address", "169.254.169.254", "/metadata", "403"],
  ])("%s", async (_what, host, path, expected) => {
    expect(await reach(name, host, path)).toBe(expected);
  });

  test("an empty list allows nothing", async () => {
    expect(await reach(name, "api.weather.gov", "/", surfacesOf(empty, origins))).toBe("403");
  });
});

describe("one path of an allowed host", () => {
  test.each(["plain HTTP", "bridged HTTP/1.1", "bridged HTTP/2"])(
    "is blocked through %s",
    async (name) => {
      expect(await reach(name, "httpbin.org", "/get")).toBe("reached /get");
      for (const path of [
        "/status/500",
        "/admin",
        "/admin;x=1",
        "/get/../admin",
        "/%61dmin",
        "//admin",
      ]) {
        expect(await reach(name, "httpbin.org", path), path).toMatch(/^40[03]$/);
      }
    },
  );

  test("is judged in a CONNECT as well, and nothing else passes there", async () => {
    expect(await reach("plain HTTP in a CONNECT", "httpbin.org", "/get")).toBe("reached /get");
    expect(await reach("plain HTTP in a CONNECT", "httpbin.org", "/admin")).toBe("403");
    await expect(reach("CONNECT", "httpbin.org", "/get")).rejects.toThrow();
  });
});
