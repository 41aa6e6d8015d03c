/** What a person, a budget and the kill switch say of captured connections: the agent knows of no proxy. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import {
  type Host,
  Network,
  networkObstacle,
  type Output,
  sayWhenSkipped,
} from "../support/network.ts";
import { agentUid, proxyIn, serveIn } from "../support/network-process.ts";
import type { Program, Settings } from "../support/program.ts";
import type { Seen } from "../support/network-server.ts";

const script = fileURLToPath(new URL("../../deploy/proxy-init/proxy-init.sh", import.meta.url));
const obstacle = networkObstacle("iptables-nft", "nc", "curl");
sayWhenSkipped("decisions on captured connections", obstacle);

const address = "198.51.100.2";
const names = { "asked.test": [address], "counted.test": [address] };
const secret = "operator-secret";
const upLimit = 100_000;
/** A server that greets and echoes: one whose connections are asked about, one whose bytes are counted, one that is open. */
const port = { asked: 25, counted: 2525, open: 4321 };

const scratch = mkdtempSync(join(tmpdir(), "authbridge-captured-"));
const secretFile = join(scratch, "operator");
chmodSync(scratch, 0o755);
writeFileSync(secretFile, secret, { mode: 0o644 });
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

function settings(workers: number): Settings {
  const rules = [{ ask: { method: "*", path: "/**" } }];
  const endpoints = [
    { host: "asked.test", port: 80, protocol: "rest", enforcement: "enforce", rules },
    { host: "asked.test", port: 443, protocol: "rest", enforcement: "enforce", rules },
    { host: "counted.test", port: 80 },
    { host: "counted.test", port: 443 },
    { host: address, port: port.asked, enforcement: "ask" },
    { host: address, port: port.counted },
    { host: address, port: port.open },
  ];
  const limit = { name: "up", unit: "bytes_up", limit: upLimit, window: "day", by: ["route"] };
  return {
    workers,
    listener: {
      roles: ["forward"],
      forward_proxy_addr: "127.0.0.1:8081",
      session_api_addr: "127.0.0.1:9094",
      transparent: { sniff_timeout: "500ms" },
    },
    session: { api_secret_file: secretFile },
    egress_enforcement: "enforce-redirect",
    egress: { allow_ips: ["198.51.100.0/24"] },
    pipeline: {
      outbound: {
        default: "deny",
        plugins: [
          { name: "egress-policy", config: { network_policies: { api: { endpoints } } } },
          { name: "budgets", config: { limits: [limit] } },
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

describe.skipIf(obstacle !== undefined).each([1, 2])("with workers: %i", (workers) => {
  let network: Network | undefined;
  let agent: Host;
  let proxy: Program;
  let seen: Seen[];

  beforeAll(async () => {
    const lab = new Network();
    network = lab;
    const dns = lab.host("dns", { ipv4: "10.96.0.2", ipv6: "fd96::2" });
    const origin = lab.host("origin", { ipv4: address, ipv6: "2001:db8:51::2" });
    agent = lab.host("agent", { ipv4: "10.77.1.2", ipv6: "fd77:1::2" }, ["10.96.0.2"]);
    const authority = await TestAuthority.create();
    const certificate = await authority.server(Object.keys(names));
    await serveIn(dns, { dns: names });
    seen = await serveIn(origin, {
      http: [80],
      https: { ports: [443], ...certificate },
      banner: Object.values(port),
    });
    const env = { IPTABLES_BACKEND: "nft" };
    expect(await agent.run(["sh", script], { env })).toMatchObject({ code: 0 });
    const files = { "origin.pem": authority.caPem };
    proxy = await proxyIn(agent, settings(workers), { files });
  }, 60_000);
  afterAll(async () => {
    await proxy?.close();
    await network?.close();
  });

  const curl = (url: string, ...data: readonly string[]): Promise<Output> => {
    const trust = ["--cacert", `${proxy.directory}/ca/ca.crt`];
    const body = data.length === 0 ? [] : ["--data-binary", "@-"];
    const command = ["curl", "-sS", "--max-time", "15", ...trust, "-w", "\n%{http_code}"];
    return agent.run([...command, ...body, url], { uid: agentUid, input: data.join("") });
  };
  const statusOf = ({ stdout }: Output): number => Number(stdout.split("\n").at(-1));
  const connects = (to: number, input: string): Promise<Output> =>
    agent.run(["nc", "-n", "-N", "-w", "8", address, String(to)], { uid: agentUid, input });

  /** The session API is on the loopback of the agent's namespace, which nothing captures. */
  async function operate(path: string, ...form: readonly string[]): Promise<unknown> {
    const url = `http://127.0.0.1:9094${path}`;
    const data = form.flatMap((field) => ["-d", field]);
    const auth = ["-H", `Authorization: Bearer ${secret}`];
    const { stdout } = await agent.run(["curl", "-sS", ...auth, ...data, url]);
    return JSON.parse(stdout);
  }

  interface Shown {
    readonly id: string;
    readonly request: { readonly host?: string; readonly path?: string };
  }

  const next = (): Promise<Shown> =>
    eventually(async () => {
      const { approvals } = (await operate("/v1/approvals")) as { approvals: Shown[] };
      return approvals[0] ?? false;
    });
  const reached = (what: Partial<Seen>): number =>
    seen.filter((one) => Object.entries(what).every(([key, value]) => one[key as "url"] === value))
      .length;

  test.each(["http", "https"])("a request over %s waits for a person", async (scheme) => {
    for (const [decision, status] of [
      ["allow", 200],
      ["deny", 403],
    ] as const) {
      const url = `/${scheme}/${decision}`;
      const sent = curl(`${scheme}://asked.test${url}`);
      const { id, request } = await next();
      expect(request).toMatchObject({ path: url });
      expect(reached({ kind: "http", url })).toBe(0);
      await operate(`/v1/approvals/${id}`, `decision=${decision}`);
      expect(statusOf(await sent)).toBe(status);
      expect(reached({ kind: "http", url })).toBe(decision === "allow" ? 1 : 0);
    }
  });

  test("a connection of no known protocol waits, and nothing is dialled before", async () => {
    for (const [at, decision] of ["allow", "deny"].entries()) {
      const sent = connects(port.asked, "words\n");
      const { id } = await next();
      expect(reached({ kind: "banner", port: port.asked })).toBe(at);
      await operate(`/v1/approvals/${id}`, `decision=${decision}`);
      const { stdout } = await sent;
      expect(stdout).toBe(decision === "allow" ? "220 hello\r\nwords\n" : "");
    }
    expect(reached({ kind: "banner", port: port.asked })).toBe(1);
  });

  test.each(["http", "https"])("the bytes of requests over %s are counted", async (scheme) => {
    const url = `${scheme}://counted.test/`;
    const statuses: number[] = [];
    for (const size of [60_000, 60_000, 10_000])
      statuses.push(statusOf(await curl(url, "x".repeat(size))));
    expect(statuses).toEqual([200, 429, 200]);
  });

  test("the bytes of connections of no known protocol are counted together, and they are cut", async () => {
    let echoed = 0;
    for (let at = 0; at < 3; at += 1) {
      const { stdout } = await connects(port.counted, "x".repeat(upLimit));
      echoed += stdout.replace("220 hello\r\n", "").length;
    }
    expect(echoed).toBeLessThanOrEqual(upLimit);
    expect(echoed).toBeGreaterThan(0);
  });

  test("the kill switch cuts what is open, and the next one is refused", async () => {
    const child = agent.start(["nc", "-n", "-d", address, String(port.open)], { uid: agentUid });
    let heard = "";
    child.stdout?.on("data", (chunk) => (heard += String(chunk)));
    const ended = new Promise((resolve) => child.once("close", resolve));
    await eventually(() => heard.includes("220 hello"));
    const reply = await operate("/v1/kill", `destination=${address}`);
    expect(reply).toMatchObject({ cut: 1 });
    await ended;
    expect((await connects(port.open, "more\n")).stdout).toBe("");
  });
});
