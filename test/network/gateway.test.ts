/**
 * The gateway topology on the real kernel: agent and gateway are different hosts, and the network between lets the agent reach
 * the gateway's port and nothing else, as the network policies of the chart do.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { TestAuthority } from "../support/certs.ts";
import { type Host, Network, networkObstacle, sayWhenSkipped } from "../support/network.ts";
import { agentUid, proxyIn, serveIn } from "../support/network-process.ts";
import type { Program, Settings } from "../support/program.ts";
import type { Seen } from "../support/network-server.ts";

const obstacle = networkObstacle("iptables-nft", "nc", "ping", "curl");
sayWhenSkipped("the gateway topology in network namespaces", obstacle);

const gateway = "10.50.0.2";
const origin4 = "198.51.100.2";
const evil4 = "203.0.113.2";
const evil6 = "2001:db8:bad::2";
const names = {
  "api.test": [origin4],
  "other.test": [origin4],
  "evil.test": [evil4],
  "idp.test": ["10.60.0.2"],
};

/** What a default-deny policy with one exception does, where a cluster's network does it: outside the agent's namespace. */
function fence(router: Host, agent: Host): void {
  for (const iptables of ["iptables-nft", "ip6tables-nft"]) {
    router.runSync(iptables, "-P", "FORWARD", "DROP");
    const replies = ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"];
    router.runSync(iptables, "-A", "FORWARD", ...replies);
    const source = iptables.startsWith("ip6") ? agent.ipv6 : agent.ipv4;
    router.runSync(iptables, "-A", "FORWARD", "!", "-s", source, "-j", "ACCEPT");
  }
  const exception = ["-s", agent.ipv4, "-d", gateway, "-p", "tcp", "--dport", "8081"];
  router.runSync("iptables-nft", "-A", "FORWARD", ...exception, "-j", "ACCEPT");
}

function settings(): Settings {
  const identity = { type: "client-secret", client_id: "gateway", client_secret: "s3cret" };
  const exchange = {
    token_url: "http://idp.test:8080/token",
    identity,
    no_token_policy: "deny",
    routes: { rules: [{ host: "api.test", target_audience: "api" }] },
  };
  return {
    listener: { roles: ["forward"], forward_proxy_addr: ":8081", transparent_proxy_addr: "off" },
    // A network policy is what keeps the agent here.
    egress_enforcement: "none",
    acknowledge_cooperative_mode: true,
    egress: { allow_ips: ["198.51.100.0/24", "203.0.113.0/24"] },
    pipeline: {
      outbound: {
        default: "deny",
        plugins: [
          { name: "egress-policy", config: { allow: ["api.test"] } },
          { name: "token-exchange", config: exchange },
        ],
      },
    },
    tls_bridge: {
      mode: "enabled",
      ca_dir: "DIRECTORY/ca",
      generate_ca: true,
      upstream_ca_bundle: "DIRECTORY/origin.pem",
    },
  };
}

describe.skipIf(obstacle !== undefined)("an agent behind a gateway", () => {
  let network: Network;
  let agent: Host;
  let evil: Host;
  let proxy: Program;
  let atOrigin: Seen[];
  let atIdp: Seen[];
  let atEvil: Seen[];

  const curl = async (
    ...args: readonly string[]
  ): Promise<{ readonly status: number; readonly body: string }> => {
    const limits = ["-sS", "--max-time", "8", "-w", "\n%{http_code}"];
    const token = ["-H", "Authorization: Bearer of-the-user"];
    const trust = ["--cacert", `${proxy.directory}/ca/ca.crt`];
    const command = ["curl", ...limits, ...token, ...trust, ...args];
    const { stdout } = await agent.run(command, { uid: agentUid });
    const lines = stdout.split("\n");
    return { status: Number(lines.at(-1)), body: lines.slice(0, -1).join("\n") };
  };
  const through = ["-x", `http://${gateway}:8081`] as const;

  beforeAll(async () => {
    network = new Network();
    const dns = network.host("dns", { ipv4: "10.96.0.2", ipv6: "fd96::2" });
    const idp = network.host("idp", { ipv4: "10.60.0.2", ipv6: "fd60::2" });
    const origin = network.host("origin", { ipv4: origin4, ipv6: "2001:db8:51::2" });
    evil = network.host("evil", { ipv4: evil4, ipv6: evil6 });
    const host = network.host("gateway", { ipv4: gateway, ipv6: "fd50::2" }, ["10.96.0.2"]);
    agent = network.host("agent", { ipv4: "10.77.1.2", ipv6: "fd77:1::2" }, ["10.96.0.2"]);
    fence(network.router, agent);
    const authority = await TestAuthority.create();
    const certificate = await authority.server(Object.keys(names));
    const https = { ports: [443], ...certificate };
    await serveIn(dns, { dns: names });
    atIdp = await serveIn(idp, { tokens: 8080 });
    atOrigin = await serveIn(origin, { http: [80], https });
    atEvil = await serveIn(evil, { http: [80], https, banner: [4321], udp: [443], dns: names });
    proxy = await proxyIn(host, settings(), { files: { "origin.pem": authority.caPem } });
  }, 60_000);
  afterAll(async () => {
    await proxy?.close();
    await network?.close();
  });
  afterEach(() => {
    expect(atEvil.filter(({ kind }) => kind !== "ready")).toEqual([]);
  });

  test.each(["http", "https"])(
    "exchanges its token through the gateway over %s",
    async (scheme) => {
      const { status } = await curl(...through, `${scheme}://api.test/over-${scheme}`);
      expect(status).toBe(200);
      const arrived = atOrigin.find(({ url }) => url === `/over-${scheme}`);
      expect(arrived).toMatchObject({ authorization: "Bearer for-api", host: "api.test" });
      expect(arrived?.from).toContain(gateway);
      expect(atIdp).toContainEqual({ kind: "token", subject: "of-the-user", audience: "api" });
    },
  );

  test("is seen inside TLS: the bridge opens the connection", async () => {
    await curl(...through, "https://api.test/inside");
    const line = await proxy.log(({ path }) => path === "/inside");
    expect(line).toMatchObject({ transport: "bridge", host: "api.test:443", client: agent.ipv4 });
  });

  test.each(["http", "https"])(
    "is refused a host that the policy does not name (%s)",
    async (scheme) => {
      const { body } = await curl(...through, "-p", `${scheme}://other.test/secret`);
      const { body: plain } = await curl(...through, `http://other.test/secret`);
      expect(`${body}${plain}`).toContain("policy.forbidden");
      expect(atOrigin.some(({ url }) => url === "/secret")).toBe(false);
    },
  );

  test.each([
    ["TCP to an origin", ["nc", "-n", "-w", "1", origin4, "80"]],
    ["TCP to anybody", ["nc", "-n", "-w", "1", evil4, "80"]],
    ["TCP over IPv6", ["nc", "-n", "-w", "1", evil6, "80"]],
    ["QUIC", ["nc", "-n", "-u", "-w", "1", evil4, "443"]],
    ["DNS", ["nc", "-n", "-u", "-w", "1", evil4, "53"]],
    ["another port", ["nc", "-n", "-w", "1", evil4, "4321"]],
    ["the gateway's health port", ["nc", "-n", "-z", "-w", "1", gateway, "9091"]],
    ["the gateway's statistics", ["nc", "-n", "-z", "-w", "1", gateway, "9093"]],
    ["the token endpoint", ["nc", "-n", "-z", "-w", "1", "10.60.0.2", "8080"]],
    ["ICMP", ["ping", "-n", "-c", "1", "-W", "1", evil4]],
    ["ICMP over IPv6", ["ping", "-n", "-c", "1", "-W", "1", evil6]],
  ])("cannot leave directly, not even as root: %s", async (what, command) => {
    const seen = atOrigin.length;
    const said = await agent.run(command, { input: "GET / HTTP/1.0\r\n\r\n" });
    // A datagram that is lost looks like one that arrived: what the hosts saw decides, here and in afterEach.
    if (!what.includes("QUIC") && what !== "DNS") expect(said.code).not.toBe(0);
    expect(said.stdout).not.toContain("HTTP/1");
    expect(atOrigin.length).toBe(seen);
  });

  test("needs no name server: the gateway resolves", async () => {
    expect((await agent.run(["curl", "-sS", "--max-time", "3", "http://api.test/"])).code).not.toBe(
      0,
    );
    expect((await curl(...through, "http://api.test/resolved")).status).toBe(200);
  });

  test("has nowhere to go when the gateway is gone", async () => {
    await proxy.kill();
    const seen = atOrigin.length;
    expect((await curl(...through, "http://api.test/")).status).toBe(0);
    expect((await curl("--noproxy", "*", `http://${origin4}/`)).status).toBe(0);
    expect(atOrigin.length).toBe(seen);
  });
});
