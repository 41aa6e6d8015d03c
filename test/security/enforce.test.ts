/** `run --enforce`: a command that wants out, in a namespace of its own (Linux). */
import { type ChildProcess, spawn, spawnSync, type StdioOptions } from "node:child_process";
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo, connect, type Server, type Socket } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { enclosureProblem } from "../../src/cli/enforce/namespace.ts";
import { TestAuthority } from "../support/certs.ts";
import type { Escapes, Outside } from "../support/escapes.ts";
import { mainFile } from "../support/program.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const escapes = new URL("../support/escapes.ts", import.meta.url).pathname;
const problem = process.platform === "linux" ? enclosureProblem() : "only Linux has namespaces";

let directory = "";
let origin: TlsOrigin;
let file = "";
let outside: Outside;
const servers: Server[] = [];
const arrived: string[] = [];
let udp: UdpSocket;
/** A connection of the caller, which the command must not get. */
let held: Socket;

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(
  options: readonly string[],
  command: readonly string[],
  stdin?: Socket,
): Promise<Ended> {
  const stdio: StdioOptions = ["ignore", "pipe", "pipe", ...(stdin === undefined ? [] : [stdin])];
  const child: ChildProcess = spawn(
    process.execPath,
    [mainFile, "run", "--enforce", ...options, "--", ...command],
    {
      cwd: directory,
      env: { PATH: process.env["PATH"] ?? "", HOME: directory, TMPDIR: directory },
      stdio,
    },
  );
  let stdout = "";
  let stderr = "";
  child.stdout?.on("data", (chunk) => (stdout += String(chunk)));
  child.stderr?.on("data", (chunk) => (stderr += String(chunk)));
  return new Promise((resolve) => child.once("close", (code) => resolve({ code, stdout, stderr })));
}

const script = (code: string): readonly string[] => [process.execPath, "-e", code];

function listening(where: {
  host?: string;
  port?: number;
  path?: string;
}): Promise<Server | undefined> {
  const server = createServer((socket) => {
    arrived.push(JSON.stringify(where));
    socket.on("error", () => undefined);
    socket.end("out");
  });
  servers.push(server);
  return new Promise((resolve) => {
    server.once("error", () => resolve(undefined));
    server.listen(where, () => resolve(server));
  });
}

const portOf = (server: Server | undefined): number | undefined =>
  (server?.address() as AddressInfo | undefined)?.port;

function ownAddress(): string {
  const all = Object.values(networkInterfaces()).flatMap((found) => found ?? []);
  return all.find(({ family, internal }) => family === "IPv4" && !internal)?.address ?? "127.0.0.2";
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "authbridge-enforce-"));
  const authority = await TestAuthority.create("origin root");
  origin = await TlsOrigin.start(await authority.server(["origin.test"]));
  await writeFile(join(directory, "roots.crt"), authority.caPem);
  file = join(directory, "proxy.yaml");
  const rules = `{ name: egress-policy, config: { network_policies: { origin: {
    endpoints: [{ host: origin.test, port: ${origin.port}, protocol: rest, enforcement: enforce, access: read-only }],
    binaries: [{ path: ${process.execPath} }] } } } }`;
  await writeFile(
    file,
    `listener: { roles: [forward] }
egress: { allow_ips: [127.0.0.1/32], hosts: { origin.test: [127.0.0.1] } }
pipeline: { outbound: { default: deny, plugins: [${rules}] } }
tls_bridge: { mode: enabled, ca_dir: ./ca, ports: [${origin.port}, 443], upstream_ca_bundle: ./roots.crt }
`,
  );
  const abstractName = `authbridge-escape-${process.pid}`;
  if (process.platform === "linux") await listening({ path: `\0${abstractName}` });
  const tcp = await listening({ host: "0.0.0.0", port: 0 });
  const tcp6 = await listening({ host: "::1", port: 0 });
  udp = createSocket("udp4", (message) => arrived.push(`udp ${message.toString()}`));
  await new Promise<void>((resolve) => {
    udp.bind(0, "0.0.0.0", resolve);
  });
  const tcpPort = portOf(tcp) ?? 0;
  held = connect({ host: "127.0.0.1", port: origin.port });
  await new Promise((resolve) => held.once("connect", resolve));
  outside = {
    tcpPort,
    tcp6Port: portOf(tcp6),
    udpPort: udp.address().port,
    abstractName,
    ownAddress: ownAddress(),
    pid: process.pid,
  };
});

afterAll(async () => {
  held.destroy();
  udp.close();
  for (const server of servers) server.close();
  await origin.close();
  await rm(directory, { recursive: true, force: true });
});

describe.skipIf(problem !== undefined)(
  `an enclosed command${problem === undefined ? "" : `, skipped: ${problem}`}`,
  () => {
    test("finds no way out, in seventeen tries", async () => {
      const ran = await run([], [process.execPath, escapes, JSON.stringify(outside)], held);
      expect(ran.code, ran.stderr).toBe(0);
      const tried = JSON.parse(ran.stdout) as Escapes;
      expect(Object.keys(tried).length).toBeGreaterThanOrEqual(12);
      expect(Object.entries(tried).filter(([, { escaped }]) => escaped)).toEqual([]);
      expect(arrived).toEqual([]);
    });

    test("reaches through the proxy what the policy allows its executable, and hears why not", async () => {
      const code = `
      const ask = (method, path) => fetch("https://origin.test:${origin.port}" + path, { method })
        .then(async (r) => r.status + " " + (await r.text()).slice(0, 30), (e) => String(e.cause ?? e));
      ask("GET", "/a").then(async (a) => console.log(JSON.stringify([a, await ask("DELETE", "/a")])))`;
      const ran = await run(["--config", file], script(code));
      expect(ran.code, ran.stderr).toBe(0);
      const [allowed, refused] = JSON.parse(ran.stdout) as string[];
      expect(allowed).toBe("200 OK-SECRET");
      expect(refused).toMatch(/^403 \{"error":"policy\.forbidden"/);
    });

    test("is judged by its executable", async () => {
      const program =
        "import urllib.request as u; u.urlopen('https://origin.test:'+__import__('sys').argv[1]+'/')";
      if (spawnSync("python3", ["--version"]).error !== undefined) return;
      const seen = origin.seen.length;
      const ran = await run(["--config", file], ["python3", "-c", program, String(origin.port)]);
      expect(ran.code).not.toBe(0);
      expect(ran.stderr).toContain("binary");
      expect(origin.seen.length).toBe(seen);
    });

    test("that knows of no proxy is captured, judged by name, and told inside TLS", async () => {
      const code = `
      const tls = require("node:tls"), fs = require("node:fs");
      const ca = fs.readFileSync(process.env.NODE_EXTRA_CA_CERTS);
      const ask = (servername, method) => new Promise((resolve) => {
        let text = "";
        const socket = tls.connect({ host: "127.0.0.1", port: ${origin.port}, servername, ca }, () =>
          socket.write(method + " /direct HTTP/1.1\\r\\nHost: " + servername + ":${origin.port}\\r\\nConnection: close\\r\\n\\r\\n"));
        socket.on("data", (data) => (text += data));
        socket.on("error", (error) => resolve(String(error)));
        socket.on("close", () => resolve(text.split("\\r\\n")[0]));
      });
      (async () => console.log(JSON.stringify([await ask("origin.test", "GET"), await ask("origin.test", "POST"), await ask("evil.test", "GET")])))()`;
      const ran = await run(["--config", file], script(code));
      expect(ran.code, ran.stderr).toBe(0);
      expect(JSON.parse(ran.stdout)).toEqual([
        "HTTP/1.1 200 OK",
        expect.stringMatching(/^HTTP\/1\.1 403 Forbidden: POST .* not permitted/),
        expect.stringMatching(/^HTTP\/1\.1 403 Forbidden: .*evil\.test/),
      ]);
      expect(origin.requestsFor("/direct")).toHaveLength(1);
    });

    test("keeps its user, its exit code, its signals and its loopback", async () => {
      const own = `
      const net = require("node:net");
      const server = net.createServer((s) => s.end("mine")).listen(0, "127.0.0.1", () =>
        net.connect(server.address().port, "127.0.0.1").on("data", (d) => {
          console.log(d + " " + process.getuid());
          process.exit(7);
        }));`;
      const ran = await run([], script(own));
      expect(ran, ran.stderr).toMatchObject({
        code: 7,
        stdout: `mine ${process.getuid?.() ?? 0}\n`,
      });
      expect((await run([], ["sh", "-c", "kill -KILL $$"])).code).toBe(137);
      expect((await run([], ["./not-there"])).code).toBe(127);
    });
  },
);

test("a run that cannot be enforced does not begin", async () => {
  if (problem === undefined) {
    const child = spawn(
      process.execPath,
      [mainFile, "run", "--enforce", "--", "sh", "-c", "echo ran"],
      {
        // No tool is found.
        env: { PATH: directory, HOME: directory, TMPDIR: directory },
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    let said = "";
    child.stdout.on("data", (chunk) => (said += String(chunk)));
    child.stderr.on("data", (chunk) => (said += String(chunk)));
    expect(await new Promise((resolve) => child.once("close", resolve))).toBe(2);
    expect(said).toContain("--enforce: unshare, setpriv, mount, ip not found");
    expect(said).not.toContain("ran");
    return;
  }
  const ran = await run([], ["sh", "-c", "echo ran"]);
  expect(ran).toMatchObject({ code: 2, stdout: "" });
});
