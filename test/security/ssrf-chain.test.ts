/** The address guard with a parent proxy: the same answers as without one, and the parent is asked for none of it. */
import { createServer, type AddressInfo } from "node:net";
import { beforeAll, describe, expect, test } from "vitest";
import {
  forbiddenNames,
  loopbackHosts,
  privateHosts,
  specialHosts,
} from "../support/forbidden-hosts.ts";
import { get, openTunnel } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type Settings } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";
import { StubParent } from "../support/stub-parent.ts";

const own = owner();
const metadataNames = ["metadata.google.internal", "metadata", "instance-data"];
const hosts = [...loopbackHosts, ...specialHosts, ...privateHosts, ...metadataNames];

let direct: ProxyProcess;
let http: StubParent;
let socksConnections = 0;
let socksUrl: string;

const strict = (over: Settings = {}): Promise<ProxyProcess> =>
  own(
    ProxyProcess.start(
      merge(
        settings({
          egress: { private_networks: "deny", hosts: forbiddenNames },
          limits: { connect_timeout: "500ms" },
        }),
        merge(over, { egress: { allow_ips: [] } }),
      ),
    ),
  );

beforeAll(async () => {
  http = await own(StubParent.start());
  const socks = createServer((socket) => {
    socksConnections += 1;
    socket.destroy();
  });
  await new Promise<void>((resolve) => socks.listen(0, "127.0.0.1", resolve));
  await own({ close: () => void socks.close() });
  socksUrl = `socks5h://127.0.0.1:${(socks.address() as AddressInfo).port}`;
  direct = await strict();
});

/** What an agent sees on both kinds of traffic. */
async function answers(proxy: ProxyProcess, host: string): Promise<readonly unknown[]> {
  const { client, answer } = await openTunnel(proxy.forward, `${host}:443`);
  client.close();
  const plain = await get(proxy.forward, `http://${host}/`);
  return [answer, plain].map(({ status, text }) => [status, codeOf(text)]);
}

function codeOf(text: string): unknown {
  return text.startsWith("{") ? (JSON.parse(text) as { error?: unknown }).error : undefined;
}

describe.each([
  ["an HTTP parent asked by address", () => http.url, "address"],
  ["an HTTP parent asked by name", () => http.url, "name"],
  ["a SOCKS5 parent asked by address", () => socksUrl, "address"],
  ["a SOCKS5 parent asked by name", () => socksUrl, "name"],
] as const)("%s", (_what, url, connectBy) => {
  let proxy: ProxyProcess;

  beforeAll(async () => {
    proxy = await strict({
      upstream_proxy: { http_proxy: url(), https_proxy: url(), connect_by: connectBy },
    });
  });

  test.each(hosts)("IP-20: %s gets the answer that it gets without a parent", async (host) => {
    http.heads.length = 0;
    const before = socksConnections;
    expect(await answers(proxy, host)).toEqual(await answers(direct, host));
    expect(http.heads).toEqual([]);
    expect(socksConnections).toBe(before);
  });

  test("the proxy's own listeners stay closed", async () => {
    const open = await own(
      ProxyProcess.start(
        settings({
          upstream_proxy: { http_proxy: url(), https_proxy: url(), connect_by: connectBy },
        }),
      ),
    );
    for (const { port } of [open.forward, open.address("stats"), open.address("health")]) {
      for (const host of ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
        expect((await get(open.forward, `http://${host}:${port}/config`)).status).toBe(403);
    }
  });
});

test("invariant 2: a name that moves is asked for at the address that was vetted", async () => {
  const origin = await own(HttpOrigin.launch());
  const proxy = await own(
    ProxyProcess.start(
      settings({
        egress: { hosts: { "mixed.test": ["169.254.169.254", "127.0.0.1"] } },
        upstream_proxy: { http_proxy: http.url, https_proxy: http.url },
      }),
    ),
  );
  http.heads.length = 0;
  expect((await get(proxy.forward, `http://mixed.test:${origin.port}/`)).status).toBe(200);
  expect(http.lines).toEqual([`CONNECT 127.0.0.1:${origin.port} HTTP/1.1`]);
});

test("a policy's allowed_ips are vetted here even where names are left to the parent", async () => {
  const origin = await own(HttpOrigin.launch());
  const policy = (range: string): Settings => ({
    pipeline: {
      outbound: {
        default: "deny",
        plugins: [
          {
            name: "egress-policy",
            config: {
              enforcement_default: "enforce",
              network_policies: {
                one: {
                  endpoints: [{ host: "ranged.test", port: origin.port, allowed_ips: [range] }],
                },
              },
            },
          },
        ],
      },
    },
  });
  const started = (range: string): Promise<ProxyProcess> =>
    own(
      ProxyProcess.start(
        merge(
          settings({
            egress: { hosts: { "ranged.test": ["10.9.9.9"] } },
            upstream_proxy: {
              http_proxy: http.url,
              https_proxy: http.url,
              connect_by: "name",
            },
          }),
          policy(range),
        ),
      ),
    );
  http.heads.length = 0;
  const closed = await started("10.1.0.0/16");
  expect((await get(closed.forward, `http://ranged.test:${origin.port}/`)).status).toBe(403);
  expect(http.heads).toEqual([]);
  const open = await started("10.9.0.0/16");
  expect((await get(open.forward, `http://ranged.test:${origin.port}/`)).status).toBe(200);
  expect(http.lines).toEqual([`CONNECT 10.9.9.9:${origin.port} HTTP/1.1`]);
});
