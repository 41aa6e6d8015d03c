/** Addresses that are ours by a route alone: no interface shows them, and the proxy's own ports answer on them. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Host, Network, networkObstacle, sayWhenSkipped } from "../support/network.ts";
import { proxyIn, serveIn } from "../support/network-process.ts";
import type { Program } from "../support/program.ts";

const obstacle = networkObstacle("curl");
sayWhenSkipped("addresses that are ours by a route", obstacle);

describe.skipIf(obstacle !== undefined)("ip route add local 10.98.0.0/16", () => {
  let network: Network | undefined;
  let host: Host;
  let proxy: Program | undefined;

  beforeAll(async () => {
    network = new Network();
    host = network.host("any", { ipv4: "10.77.0.2", ipv6: "fd77::2" });
    host.runSync("ip", "route", "add", "local", "10.98.0.0/16", "dev", "lo");
    host.runSync("ip", "-6", "route", "add", "local", "fd98::/64", "dev", "lo");
    await serveIn(host, { http: [8088] });
    proxy = await proxyIn(host, {
      listener: {
        roles: ["forward"],
        forward_proxy_addr: "[::]:8081",
        transparent_proxy_addr: "off",
      },
      egress_enforcement: "none",
      acknowledge_cooperative_mode: true,
      egress: { allow_ips: ["10.98.0.0/16", "fd98::/64"], hosts: { "own.test": ["10.98.3.4"] } },
      pipeline: { outbound: { default: "allow", plugins: [] } },
    });
  }, 60_000);
  afterAll(async () => {
    await proxy?.close();
    await network?.close();
  });

  /** The status of the CONNECT and that of the request behind it. */
  async function statuses(authority: string): Promise<string> {
    const through = ["-p", "-x", "http://127.0.0.1:8081"];
    const told = ["-s", "-o", "/dev/null", "-w", "%{http_connect} %{http_code}"];
    const { stdout } = await host.run(["curl", ...told, ...through, `http://${authority}/`]);
    return stdout;
  }

  test.each(["10.98.1.2:8081", "10.98.200.7:8081", "own.test:8081", "[fd98::5]:8081"])(
    "CONNECT %s is one of the proxy's own listeners",
    async (authority) => {
      expect(await statuses(authority)).toBe("403 000");
    },
  );

  test.each(["10.98.1.2:8088", "[fd98::5]:8088"])("CONNECT %s is another port", async (where) => {
    expect(await statuses(where)).toBe("200 200");
  });
});
