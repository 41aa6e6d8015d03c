/**
 * The tables of test/security for captured connections: what the other surfaces refuse is refused here, whatever a client
 * writes into Host, the server name or the target, and wherever it sends its packets.
 */
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TestAuthority } from "../support/certs.ts";
import { forbidden } from "../support/forbidden-destinations.ts";
import { innerNames } from "../support/inner-names.ts";
import { type Host, Network, networkObstacle, sayWhenSkipped } from "../support/network.ts";
import { agentUid, proxyIn, serveIn } from "../support/network-process.ts";
import type { Program } from "../support/program.ts";
import type { Seen } from "../support/network-server.ts";

const script = fileURLToPath(new URL("../../deploy/proxy-init/proxy-init.sh", import.meta.url));
const obstacle = networkObstacle("iptables-nft", "nc", "ping", "curl");
sayWhenSkipped("names on captured connections in network namespaces", obstacle);

const origin4 = "198.51.100.2";
const { allowed, other, table } = innerNames;

describe.skipIf(obstacle !== undefined)("a captured connection", () => {
  let network: Network;
  let agent: Host;
  let proxy: Program;
  let atOrigin: Seen[];

  /** Raw HTTP on port 80; the statuses of the answers. */
  const http = async (...requests: readonly string[]): Promise<number[]> => {
    const command = ["nc", "-n", "-w", "2", origin4, "80"];
    const { stdout } = await agent.run(command, { uid: agentUid, input: requests.join("") });
    return [...stdout.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
  };
  const get = (host: string, connection = "keep-alive"): string =>
    `GET /named HTTP/1.1\r\nHost: ${host}\r\nConnection: ${connection}\r\n\r\n`;
  const curl = async (...args: readonly string[]): Promise<number> => {
    const limits = ["-sS", "-o", "/dev/null", "--max-time", "5", "-w", "%{http_code}"];
    const trust = ["--cacert", `${proxy.directory}/ca/ca.crt`];
    const { stdout } = await agent.run(["curl", ...limits, ...trust, ...args], { uid: agentUid });
    return Number(stdout);
  };
  /** How often the origin was asked for something. */
  const asked = (): number => atOrigin.filter(({ kind }) => kind === "http").length;

  beforeAll(async () => {
    network = new Network();
    const origin = network.host("origin", { ipv4: origin4, ipv6: "2001:db8:51::2" });
    agent = network.host("agent", { ipv4: "10.77.1.2", ipv6: "fd77:1::2" }, ["10.96.0.2"]);
    const authority = await TestAuthority.create();
    const certificate = await authority.server([allowed, other, "www.allowed.test", origin4]);
    atOrigin = await serveIn(origin, { http: [80, 9093], https: { ports: [443], ...certificate } });
    expect((await agent.run(["sh", script])).code).toBe(0);
    const ours = [origin4];
    const settings = {
      // Without the pin, only the policy and the address guard are left to refuse.
      listener: {
        roles: ["forward"],
        forward_proxy_addr: "127.0.0.1:8081",
        transparent: { pin: "off" },
      },
      egress: {
        private_networks: "deny",
        allow_ips: [`${origin4}/32`],
        hosts: {
          [allowed]: ours,
          [other]: ours,
          [`x.${allowed}`]: ours,
          [`x${allowed}`]: ours,
          "evil.test": ours,
          "a.b.evil.test": ours,
          "metadata.google.internal": ours,
          "rebound.test": ["169.254.169.254"],
          "mixed.test": ["10.0.0.9", "127.0.0.2", "::1"],
          "mapped.test": ["::ffff:127.0.0.2"],
        },
      },
      pipeline: {
        outbound: {
          default: "deny",
          plugins: [
            {
              name: "egress-policy",
              config: { allow: ["*"], deny: ["evil.test", "**.evil.test"] },
            },
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
    proxy = await proxyIn(agent, settings, { files: { "origin.pem": authority.caPem } });
  }, 60_000);
  afterAll(async () => {
    await proxy?.close();
    await network?.close();
  });

  test("reaches what is allowed, in the clear and over TLS", async () => {
    expect(await http(get(allowed, "close"))).toEqual([200]);
    expect(await curl("--connect-to", `::${origin4}:443`, `https://${allowed}/`)).toBe(200);
  });

  test.each(forbidden)("HTTP refuses %s: %s", async (_what, host) => {
    const before = asked();
    const [status] = await http(get(host, "close"));
    expect([400, 403]).toContain(status);
    expect(asked()).toBe(before);
  });

  test.each(forbidden)("TLS refuses %s: %s", async (_what, host) => {
    const before = asked();
    const status = await curl("--connect-to", `::${origin4}:443`, `https://${host}/`);
    // 0: an alert instead of a handshake, or a URL that curl itself does not take.
    expect([0, 400, 403, 421]).toContain(status);
    expect(asked()).toBe(before);
  });

  test.each([
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "10.1.2.3",
    "172.31.0.1",
    "100.64.0.1",
    "203.0.113.7",
    "[fd00:ec2::254]",
    "[fd12:3456::1]",
    "[64:ff9b::a9fe:a9fe]",
  ])("refuses packets to %s", async (address) => {
    expect(await curl("-g", `http://${address}/`)).toBe(403);
  });

  test.each(["8081", "8082", "9091", "9093", "9094"])(
    "refuses the proxy's own port %s",
    async (port) => {
      const input = `GET / HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: close\r\n\r\n`;
      const { stdout } = await agent.run(["nc", "-n", "-w", "2", origin4, port], {
        uid: agentUid,
        input,
      });
      expect(stdout).toMatch(/^HTTP\/1\.1 403/);
    },
  );

  /** The port of a name in the clear; no port means 80 here. */
  const names = table.map(([what, name, expected]) =>
    what.startsWith("no port")
      ? (["no port, which is 80", name, "ok"] as const)
      : ([what, name.replaceAll("PORT", "80"), expected] as const),
  );
  test.each(names)(
    "a later request in the clear with %s: %s: %s",
    async (_what, name, expected) => {
      const before = asked();
      const statuses = await http(get(allowed), get(name, "close"));
      expect(statuses[0]).toBe(200);
      if (expected === "ok") expect(statuses[1]).toBe(200);
      else if (expected !== "ok or refused")
        expect(expected.split(" or ").map(Number)).toContain(statuses[1]);
      expect(asked() - before).toBe(statuses.filter((status) => status === 200).length);
    },
  );

  const inTls = table.map(([what, name, expected]) =>
    what.startsWith("no port")
      ? (["no port, which is 443", name, "ok"] as const)
      : ([what, name.replaceAll("PORT", "443"), expected] as const),
  );
  test.each(inTls)("inside TLS with %s: %s: %s", async (what, name, expected) => {
    // An empty value makes curl leave the field out; a semicolon makes it send an empty one.
    const header = name === "" ? "Host;" : `Host: ${name}`;
    for (const version of ["--http1.1", "--http2"]) {
      const before = asked();
      const status = await curl(
        version,
        "-H",
        header,
        "--connect-to",
        `::${origin4}:443`,
        `https://${allowed}/`,
      );
      const words = expected.split(" or ").map((word) => (word === "ok" ? 200 : Number(word)));
      // HTTP/2 has a stream error for what cannot be an authority.
      const wanted = version === "--http2" && expected !== "ok" ? [...words, 0] : words;
      if (expected !== "ok or refused" && what !== "nothing") expect(wanted).toContain(status);
      expect(asked() - before).toBe(status === 200 ? 1 : 0);
    }
  });

  test.each([
    ["an address", "127.0.0.1"],
    ["NUL in it", `${allowed}\0evil.test`],
    ["300 bytes", "a".repeat(300)],
  ])("a server name with %s is answered with an alert", async (_what, name) => {
    const { clientHello, records } = await import("../support/client-hello.ts");
    const hello = records(clientHello({ sni: name }));
    const send = `require("net").connect(443, "${origin4}", function () { this.write(Buffer.from("${hello.toString("hex")}", "hex")); this.on("data", (d) => process.stdout.write(d.toString("hex"))); })`;
    const { stdout } = await agent.run([process.execPath, "-e", send], {
      uid: agentUid,
      capabilities: ["dac_read_search"],
    });
    expect(stdout).toBe("15030300020231");
  });
});
