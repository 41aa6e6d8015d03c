/**
 * `npm run bench:bridge`: what opening HTTPS costs, beside the npm proxies that open it too, interleaved in one run.
 *
 * Three figures per contestant: requests a second over kept connections, new connections a second (CONNECT, full handshake,
 * one request), and how long a request to a host that was never seen takes. Processor time is that of the proxy alone.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import https from "node:https";
import net, { type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ChildProcess, spawn } from "node:child_process";
import tls, { type TLSSocket } from "node:tls";
import { parseArgs } from "node:util";
import { TestAuthority } from "../test/support/certs.ts";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "3" }, seconds: { type: "string", default: "2" } },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
const connections = 16;
const names = 40;
const body = Buffer.alloc(1_024, "x");

const authority = await TestAuthority.create();
const hosts = [
  "localhost",
  "pass.bench.test",
  ...Array.from({ length: names * rounds * 4 }, (_, index) => `h${index}.bench.test`),
];
// Made beforehand: the origin's certificates are not what is measured.
const contexts = new Map<string, tls.SecureContext>();
for (const host of hosts)
  contexts.set(host, tls.createSecureContext(await authority.server([host])));
const certificate = await authority.server(["localhost"]);
const origin = https.createServer(
  {
    ...certificate,
    keepAliveTimeout: 60_000,
    SNICallback: (name, done) => done(null, contexts.get(name)),
  },
  (_request, response) => {
    response.setHeader("Content-Length", body.length);
    response.end(body);
  },
);
await new Promise<void>((resolve) => {
  origin.listen(0, "127.0.0.1", resolve);
});
const originPort = (origin.address() as AddressInfo).port;
const folder = mkdtempSync(join(tmpdir(), "authbridge-bridge-bench-"));
const originCa = join(folder, "origin-ca.crt");
writeFileSync(originCa, authority.caPem);

interface Contestant {
  readonly name: string;
  readonly port: number;
  readonly process: ChildProcess;
  /** False where the peer cannot be told addresses for names: it is asked for localhost only. */
  readonly knowsNames: boolean;
}

function started(child: ChildProcess, find: (line: string) => number | undefined): Promise<number> {
  return new Promise((resolve, reject) => {
    let text = "";
    const onData = (chunk: Buffer): void => {
      text += chunk.toString();
      for (const line of text.split("\n")) {
        const port = find(line);
        if (port !== undefined) resolve(port);
      }
    };
    child.stdout?.on("data", onData);
    child.stderr?.on("data", onData);
    child.once("exit", (code) => reject(new Error(`ended with ${code}: ${text.slice(-300)}`)));
  });
}

async function startOurs(): Promise<Contestant> {
  const file = join(folder, "config.yaml");
  const fixed = hosts.map((host) => `    ${host}: [127.0.0.1]`).join("\n");
  writeFileSync(
    file,
    `listener: { roles: [forward], forward_proxy_addr: "127.0.0.1:0", session_api_addr: "127.0.0.1:0", health_addr: "127.0.0.1:0" }
stats: { address: "127.0.0.1:0" }
egress:
  allow_ips: [127.0.0.0/8]
  hosts:
${fixed}
tls_bridge: { mode: enabled, ca_dir: ${folder}/ca, generate_ca: true, ports: [${originPort}], upstream_ca_bundle: ${originCa}, passthrough_hosts: [pass.bench.test] }
`,
  );
  const child = spawn(process.execPath, ["dist/main.js", "--config", file], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const port = await started(child, (line) => {
    if (!line.includes('"msg":"serving"')) return undefined;
    return (JSON.parse(line) as { addresses: { forward: { port: number } } }).addresses.forward
      .port;
  });
  return { name: "authbridge", port, process: child, knowsNames: true };
}

async function startPeer(name: string): Promise<Contestant | undefined> {
  const child = spawn(process.execPath, [`bench/peers/${name}.ts`], {
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      NODE_EXTRA_CA_CERTS: originCa,
      NODE_TLS_REJECT_UNAUTHORIZED: "0",
      BENCH_TLS: "1",
    },
  });
  try {
    const port = await started(child, (line) => {
      const found = /"proxy":\s*(\d+)/.exec(line)?.[1];
      return found === undefined ? undefined : Number(found);
    });
    return { name, port, process: child, knowsNames: false };
  } catch {
    process.stdout.write(`skipped: ${name} (npm ci --prefix bench installs it)\n`);
    return undefined;
  }
}

function connect(port: number, host: string): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: "127.0.0.1", noDelay: true });
    const fail = (error: Error): void => {
      socket.destroy();
      reject(error);
    };
    socket.once("error", fail);
    socket.write(`CONNECT ${host}:${originPort} HTTP/1.1\r\nHost: ${host}:${originPort}\r\n\r\n`);
    socket.once("data", (head: Buffer) => {
      if (!head.toString().startsWith("HTTP/1.1 200")) {
        fail(new Error(head.toString().slice(0, 60)));
        return;
      }
      // The client's own checks are not what is measured; the origin's certificate is the proxy's to verify.
      const secured = tls.connect({
        socket,
        servername: host,
        rejectUnauthorized: false,
        ALPNProtocols: ["http/1.1"],
      });
      secured.once("error", fail);
      secured.once("secureConnect", () => resolve(secured));
    });
  });
}

/** One request on an open connection; rejects unless it is answered in full. */
function ask(socket: TLSSocket, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = "";
    const onClose = (): void => reject(new Error("closed"));
    const onData = (chunk: Buffer): void => {
      text += chunk.toString("latin1");
      const end = text.indexOf("\r\n\r\n");
      if (end === -1 || text.length < end + 4 + body.length) return;
      socket.off("data", onData).off("close", onClose);
      if (text.startsWith("HTTP/1.1 200")) resolve();
      else reject(new Error(text.slice(0, 80)));
    };
    socket.on("data", onData).once("close", onClose);
    socket.write(`GET / HTTP/1.1\r\nHost: ${host}:${originPort}\r\n\r\n`);
  });
}

function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

interface Measured {
  readonly rate: number;
  readonly cpuUs: number;
  readonly p50Ms: number;
}

/** Runs `work` from several workers until the time is up. */
async function measure(pid: number, work: () => Promise<void>): Promise<Measured> {
  const times: number[] = [];
  const until = performance.now() + seconds * 1_000;
  const cpuBefore = cpuMs(pid);
  const startedAt = performance.now();
  await Promise.all(
    Array.from({ length: connections }, async () => {
      while (performance.now() < until) {
        const at = performance.now();
        await work();
        times.push(performance.now() - at);
      }
    }),
  );
  const elapsed = performance.now() - startedAt;
  times.sort((a, b) => a - b);
  return {
    rate: (times.length / elapsed) * 1_000,
    cpuUs: ((cpuMs(pid) - cpuBefore) * 1_000) / times.length,
    p50Ms: times[times.length >> 1] ?? Number.NaN,
  };
}

async function keepAlive({ port, process: child }: Contestant): Promise<Measured> {
  const open = await Promise.all(
    Array.from({ length: connections }, () => connect(port, "localhost")),
  );
  const free = [...open];
  const result = await measure(child.pid ?? 0, async () => {
    const socket = free.pop();
    if (socket === undefined) throw new Error("no connection is free");
    await ask(socket, "localhost");
    free.push(socket);
  });
  for (const socket of open) socket.destroy();
  return result;
}

const fresh = ({ port, process: child }: Contestant): Promise<Measured> =>
  measure(child.pid ?? 0, async () => {
    const socket = await connect(port, "localhost");
    await ask(socket, "localhost");
    socket.destroy();
  });

let nextName = 2;

/** One connection after another: CONNECT, handshake, first answer. */
async function oneByOne(
  { port, process: child }: Contestant,
  nameOf: () => string,
): Promise<Measured> {
  const times: number[] = [];
  const cpuBefore = cpuMs(child.pid ?? 0);
  const startedAt = performance.now();
  for (let count = 0; count < names; count += 1) {
    const host = nameOf();
    const at = performance.now();
    const socket = await connect(port, host);
    await ask(socket, host);
    times.push(performance.now() - at);
    socket.destroy();
  }
  times.sort((a, b) => a - b);
  const elapsed = performance.now() - startedAt;
  return {
    rate: (names / elapsed) * 1_000,
    cpuUs: ((cpuMs(child.pid ?? 0) - cpuBefore) * 1_000) / names,
    p50Ms: times[times.length >> 1] ?? Number.NaN,
  };
}

const newHosts = (contestant: Contestant): Promise<Measured> =>
  oneByOne(contestant, () => {
    nextName += 1;
    return hosts[nextName] ?? "localhost";
  });
const passedThrough = (contestant: Contestant): Promise<Measured> =>
  oneByOne(contestant, () => "pass.bench.test");

const cases = [
  { name: "bridged GET 1 KiB, kept connections", run: keepAlive, needsNames: false },
  { name: "CONNECT, full handshake, one GET", run: fresh, needsNames: false },
  { name: "the same one by one, each to a host never seen", run: newHosts, needsNames: true },
  {
    name: "the same one by one, through a tunnel that is not opened",
    run: passedThrough,
    needsNames: true,
  },
] as const;

const contestants = (
  await Promise.all([startOurs(), startPeer("mockttp"), startPeer("http-mitm-proxy")])
).filter((contestant): contestant is Contestant => contestant !== undefined);
for (const { name, run, needsNames } of cases) {
  const taking = contestants.filter(({ knowsNames }) => knowsNames || !needsNames);
  const results = new Map<string, Measured[]>(taking.map((contestant) => [contestant.name, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const contestant of taking) {
      try {
        results.get(contestant.name)?.push(await run(contestant));
      } catch (error) {
        process.stdout.write(
          `FAILED: ${contestant.name}: ${error instanceof Error ? error.message : String(error)}\n`,
        );
      }
    }
  }
  process.stdout.write(
    `\n### ${name}\n\n| | per s | ours/it | p50 ms | CPU µs | its CPU/ours |\n| --- | ---: | ---: | ---: | ---: | ---: |\n`,
  );
  const middle = (list: readonly Measured[], key: keyof Measured): number =>
    list.map((one) => one[key]).sort((a, b) => a - b)[list.length >> 1] ?? Number.NaN;
  const ours = results.get("authbridge") ?? [];
  for (const [contestant, list] of results) {
    const rate = middle(list, "rate");
    const cpu = middle(list, "cpuUs");
    process.stdout.write(
      `| ${contestant} | ${rate.toFixed(0)} | ${(middle(ours, "rate") / rate).toFixed(2)}x | ${middle(list, "p50Ms").toFixed(2)} | ${cpu.toFixed(0)} | ${(cpu / middle(ours, "cpuUs")).toFixed(2)}x |\n`,
    );
  }
}
for (const { process: child } of contestants) child.kill("SIGTERM");
origin.close();
origin.closeAllConnections();
rmSync(folder, { recursive: true, force: true });
