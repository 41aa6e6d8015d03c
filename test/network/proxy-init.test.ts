/** The capture script on the real kernel, with both backends of iptables. */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type Host,
  Network,
  networkObstacle,
  type Output,
  sayWhenSkipped,
} from "../support/network.ts";

const script = fileURLToPath(new URL("../../deploy/proxy-init/proxy-init.sh", import.meta.url));
const obstacle = networkObstacle("iptables-nft", "iptables-legacy", "nc", "ping");
sayWhenSkipped("the capture script in network namespaces", obstacle);

const resolver = "172.31.0.10";
const resolver6 = "fd31::a";

function init(host: Host, env: Readonly<Record<string, string>> = {}): Promise<Output> {
  return host.run(["sh", script], { env });
}

describe.skipIf(obstacle !== undefined).each(["nft", "legacy"])(
  "proxy-init with iptables-%s",
  (backend) => {
    let network: Network;
    let agent: Host;
    let installed: Output;
    const rules = (table: string, family: 4 | 6 = 4, host = agent): string[] =>
      host
        .runSync(`${family === 6 ? "ip6tables" : "iptables"}-${backend}`, "-t", table, "-S")
        .split("\n")
        .filter((line) => line.startsWith("-A"));
    /** Packets that a rule of a chain has met. */
    const packets = (table: string, chain: string, target: string, host = agent): number => {
      const listing = host.runSync(
        `iptables-${backend}`,
        "-t",
        table,
        "-L",
        chain,
        "-n",
        "-v",
        "-x",
      );
      return listing
        .split("\n")
        .map((line) => line.trim().split(/\s+/))
        .filter((columns) => columns[2] === target)
        .reduce((sum, columns) => sum + Number(columns[0]), 0);
    };

    beforeAll(async () => {
      network = new Network();
      agent = network.host("agent", { ipv4: "10.77.1.2", ipv6: "fd77:1::2" }, [
        resolver,
        resolver6,
      ]);
      installed = await init(agent, { IPTABLES_BACKEND: backend });
    });
    afterAll(() => network.close());

    test("it succeeds, and its self-test says what it tried", () => {
      expect(installed.stderr).toContain(
        "IPv4: tried TCP, DNS elsewhere, UDP 443 and ICMP; nothing got out",
      );
      expect(installed.stderr).toContain(
        "IPv6: tried TCP, DNS elsewhere, UDP 443 and ICMP; nothing got out",
      );
      expect(installed.code).toBe(0);
    });

    test.each([4, 6] as const)("Q1: IPv%i: both chains are first in OUTPUT", (family) => {
      expect(rules("nat", family)[0]).toBe("-A OUTPUT -j AB_REDIRECT");
      expect(rules("mangle", family)[0]).toBe("-A OUTPUT -j AB_NOTCP");
    });

    test("Q2: what returns first: the mesh's mark, the proxy's user, loopback", () => {
      const exempt = [
        "-m mark --mark 0x539/0xfff",
        "-m owner --uid-owner 1337",
        "-o lo",
        "-d 127.0.0.0/8",
      ];
      const chain = rules("nat").filter((rule) => rule.startsWith("-A AB_REDIRECT"));
      expect(chain.slice(0, 4)).toEqual(exempt.map((match) => `-A AB_REDIRECT ${match} -j RETURN`));
      const others = rules("mangle").filter((rule) => rule.startsWith("-A AB_NOTCP"));
      expect(others.slice(1, 5)).toEqual(exempt.map((match) => `-A AB_NOTCP ${match} -j RETURN`));
    });

    test("Q3: DNS is exempt to the nameservers of resolv.conf, and to nobody else", () => {
      const dns = (table: string): string[] => rules(table).filter((rule) => rule.includes("53"));
      expect(dns("nat").filter((rule) => rule.includes("dport"))).toEqual([
        `-A AB_REDIRECT -d ${resolver}/32 -p tcp -m tcp --dport 53 -j RETURN`,
      ]);
      expect(dns("mangle").filter((rule) => rule.includes("dport"))).toEqual([
        `-A AB_NOTCP -d ${resolver}/32 -p udp -m udp --dport 53 -j RETURN`,
      ]);
      expect([...rules("nat"), ...rules("mangle")].join("\n")).not.toMatch(/ 10\.|0\.0\.0\.0/);
    });

    test("Q4: every other TCP connection is redirected, and nat drops nothing", () => {
      const last = rules("nat")
        .filter((rule) => rule.startsWith("-A AB_REDIRECT"))
        .at(-1);
      expect(last).toBe("-A AB_REDIRECT -p tcp -j REDIRECT --to-ports 8082");
      expect(rules("nat").join("\n")).not.toContain("DROP");
    });

    test("Q5: mangle lets replies and TCP pass and drops the rest", () => {
      const chain = rules("mangle").filter((rule) => rule.startsWith("-A AB_NOTCP"));
      expect(chain[0]).toMatch(/--ctstate (?:RELATED,ESTABLISHED|ESTABLISHED,RELATED) -j RETURN$/);
      expect(chain.at(-2)).toBe("-A AB_NOTCP -p tcp -j RETURN");
      expect(chain.at(-1)).toBe("-A AB_NOTCP -j DROP");
    });

    test("Q6: the IPv6 nameserver is exempt for tcp and udp", () => {
      expect(rules("nat", 6)).toContain(
        `-A AB_REDIRECT -d ${resolver6}/128 -p tcp -m tcp --dport 53 -j RETURN`,
      );
      expect(rules("mangle", 6)).toContain(
        `-A AB_NOTCP -d ${resolver6}/128 -p udp -m udp --dport 53 -j RETURN`,
      );
    });

    test("Q7: a SYN meets our chain before one that a mesh added behind it", async () => {
      const host = network.host("mesh", { ipv4: "10.77.2.2", ipv6: "fd77:2::2" }, [resolver]);
      const iptables = `iptables-${backend}`;
      host.runSync(iptables, "-t", "nat", "-N", "ISTIO_OUTPUT");
      host.runSync(
        iptables,
        "-t",
        "nat",
        "-A",
        "ISTIO_OUTPUT",
        "-p",
        "tcp",
        "-j",
        "REDIRECT",
        "--to-ports",
        "15001",
      );
      host.runSync(iptables, "-t", "nat", "-A", "OUTPUT", "-j", "ISTIO_OUTPUT");
      expect((await init(host, { IPTABLES_BACKEND: backend })).code).toBe(0);
      const before = packets("nat", "AB_REDIRECT", "REDIRECT", host);
      await host.run(["nc", "-n", "-w", "1", "203.0.113.9", "443"]);
      expect(packets("nat", "AB_REDIRECT", "REDIRECT", host)).toBeGreaterThan(before);
      expect(packets("nat", "ISTIO_OUTPUT", "REDIRECT", host)).toBe(0);
    });

    test("Q8: a datagram for outside meets the drop", async () => {
      const before = packets("mangle", "AB_NOTCP", "DROP");
      await agent.run(["nc", "-n", "-u", "-w", "1", "203.0.113.9", "4433"], { input: "x" });
      expect(packets("mangle", "AB_NOTCP", "DROP")).toBeGreaterThan(before);
    });

    test("run again, it leaves the same rules, once", async () => {
      const before = (["nat", "mangle"] as const).flatMap((table) => [
        ...rules(table),
        ...rules(table, 6),
      ]);
      expect((await init(agent, { IPTABLES_BACKEND: backend })).code).toBe(0);
      const after = (["nat", "mangle"] as const).flatMap((table) => [
        ...rules(table),
        ...rules(table, 6),
      ]);
      expect(after).toEqual(before);
    });

    test("run again with other settings, nothing of the old ones stays", async () => {
      const host = network.host("again", { ipv4: "10.77.3.2", ipv6: "fd77:3::2" }, [resolver]);
      await init(host, { IPTABLES_BACKEND: backend });
      await init(host, {
        IPTABLES_BACKEND: backend,
        PROXY_UID: "2000",
        TRANSPARENT_PORT: "9000",
        ZTUNNEL_MARK: "",
      });
      const text = [
        ...rules("nat", 4, host),
        ...rules("mangle", 4, host),
        ...rules("nat", 6, host),
      ].join("\n");
      expect(text).toContain("--uid-owner 2000");
      expect(text).toContain("--to-ports 9000");
      expect(text).not.toMatch(/1337|8082|--mark/);
    });

    test("with INBOUND_PROXY_PORT it captures what comes in, and no more when run without", async () => {
      const host = network.host("inbound", { ipv4: "10.77.6.2", ipv6: "fd77:6::2" }, [resolver]);
      const env = { IPTABLES_BACKEND: backend, INBOUND_PROXY_PORT: "8083" };
      const more = { ...env, INBOUND_PORTS_EXCLUDE: "9091,9093" };
      expect((await init(host, more)).code).toBe(0);
      for (const family of [4, 6] as const) {
        const inbound = rules("nat", family, host).filter((rule) => /INBOUND/.test(rule));
        expect(inbound).toEqual([
          "-A PREROUTING -j AB_INBOUND",
          "-A AB_INBOUND -i lo -j RETURN",
          "-A AB_INBOUND -p tcp -m tcp --dport 9091 -j RETURN",
          "-A AB_INBOUND -p tcp -m tcp --dport 9093 -j RETURN",
          "-A AB_INBOUND -p tcp -j REDIRECT --to-ports 8083",
        ]);
      }
      expect((await init(host, { ...env, IPV6: "drop" })).code).toBe(0);
      expect(rules("mangle", 6, host)).toContain("-A AB_INBOUND -p tcp -j DROP");
      expect((await init(host, { IPTABLES_BACKEND: backend })).code).toBe(0);
      const left = [
        ...rules("nat", 4, host),
        ...rules("nat", 6, host),
        ...rules("mangle", 6, host),
      ];
      expect(left.join("\n")).not.toContain("-A PREROUTING");
      const wrong = await init(host, { ...env, INBOUND_PORTS_EXCLUDE: "9091,x" });
      expect(wrong.code).toBe(1);
      expect(wrong.stderr).toContain("INBOUND_PORTS_EXCLUDE must be a number");
    });

    test("IPV6=drop closes IPv6 without the table that redirects", async () => {
      const host = network.host("six", { ipv4: "10.77.4.2", ipv6: "fd77:4::2" }, [
        resolver,
        resolver6,
      ]);
      const done = await init(host, { IPTABLES_BACKEND: backend, IPV6: "drop" });
      expect(done.stderr).toContain("IPv6: tried TCP");
      expect(done.code).toBe(0);
      expect(rules("mangle", 6, host)).toContain(
        `-A AB_NOTCP -d ${resolver6}/128 -p tcp -m tcp --dport 53 -j RETURN`,
      );
      expect(rules("mangle", 6, host).join("\n")).not.toContain("-p tcp -j RETURN");
    });

    test("the self-test fails when a rule in front of ours lets something out", async () => {
      const host = network.host("leak", { ipv4: "10.77.5.2", ipv6: "fd77:5::2" }, [resolver]);
      // Another program marks packets as the mesh's, as a process with NET_RAW could.
      host.runSync(
        `iptables-${backend}`,
        "-t",
        "raw",
        "-A",
        "OUTPUT",
        "-p",
        "udp",
        "--dport",
        "443",
        "-j",
        "MARK",
        "--set-mark",
        "0x539",
      );
      const done = await init(host, { IPTABLES_BACKEND: backend });
      expect(done.stderr).toContain("self-test, IPv4: UDP to 192.0.2.1 (port 443 or 53) got out");
      expect(done.code).toBe(1);
      expect(host.runSync(`iptables-${backend}`, "-t", "mangle", "-S")).not.toContain("AB_WITNESS");
    });
  },
);

describe.skipIf(obstacle !== undefined)("proxy-init refuses", () => {
  let network: Network;
  let host: Host;
  beforeAll(() => {
    network = new Network();
    host = network.host("agent", { ipv4: "10.78.1.2", ipv6: "fd78:1::2" }, [resolver]);
  });
  afterAll(() => network.close());

  const untouched = (): string => host.runSync("iptables-nft", "-t", "nat", "-S", "OUTPUT");

  test.each([
    ["another mode", { MODE: "tproxy" }, "MODE must be enforce-redirect"],
    ["the mode of the Envoy sidecar", { MODE: "redirect" }, "belongs to the Envoy sidecar"],
    ["root as the proxy's user", { PROXY_UID: "0" }, "PROXY_UID must be a number from 1"],
    ["a user that is no number", { PROXY_UID: "1337; true" }, "PROXY_UID must be a number"],
    [
      "a port that is none",
      { TRANSPARENT_PORT: "70000" },
      "TRANSPARENT_PORT must be a number from 1 to 65535",
    ],
    ["a mark that is none", { ZTUNNEL_MARK: "1 -j ACCEPT" }, "ZTUNNEL_MARK must be a mark"],
    ["a file without nameservers", { RESOLV_CONF: "/dev/null" }, "names no nameserver"],
    [
      "a file that is not there",
      { RESOLV_CONF: "/nowhere/resolv.conf" },
      "cannot be read (RESOLV_CONF)",
    ],
    ["a command that is not there", { IPTABLES_CMD: "iptables-none" }, "egressEnforcement: none"],
  ])("%s, and changes nothing", async (_what, env, message) => {
    const done = await init(host, env);
    expect(done.stderr).toContain(message);
    expect(done.code).toBe(1);
    expect(untouched()).toBe("-P OUTPUT ACCEPT\n");
  });

  test("a nameserver that is not an address", async () => {
    writeFileSync(`${host.etc}/odd.conf`, "nameserver 10.0.0.0/8\n");
    const done = await init(host, { RESOLV_CONF: `${host.etc}/odd.conf` });
    expect(done.stderr).toContain("'10.0.0.0/8' is not an address");
    expect(done.code).toBe(1);
  });

  test("to leave IPv6 open: without ip6tables it fails, and names the remedy", async () => {
    const done = await init(host, { IP6TABLES_CMD: "/bin/false" });
    expect(done.stderr).toMatch(/table mangle|IPv6/);
    expect(done.stderr).toContain("egress_enforcement: none");
    expect(done.code).toBe(1);
  });

  test.each([
    ["without root", { uid: 1000 }, "must run as user 0"],
    ["without its capabilities", { uid: 0, capabilities: [] as string[] }, "NET_ADMIN and NET_RAW"],
  ])("to run %s", async (what, options, message) => {
    const dropped = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    const command = what === "without root" ? ["sh", script] : [...dropped, "sh", script];
    const done = await host.run(command, what === "without root" ? options : {});
    expect(done.stderr).toContain(message);
    expect(done.code).toBe(1);
  });
});

test("the script is POSIX sh", () => {
  execFileSync("sh", ["-n", script]);
});
