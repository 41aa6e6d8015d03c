/**
 * `npm run bench:bridge`: how long HTTPS to a host that was never seen takes, for which a certificate is made, beside HTTPS
 * through a tunnel that is not opened. What opened connections cost is `node bench/run.ts --case bridged-h1,bridged-h2,handshake`.
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
  options: { rounds: { type: "string", default: "3" } },
});
const rounds = Number(values.rounds);
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
  return { name: "authbridge", port, process: child };
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
  readonly cpuUs: number;
  readonly p50Ms: number;
}

let nextName = 2;

/** One connection after another: CONNECT, handshake, first answer. */
async function oneByOne(
  { port, process: child }: Contestant,
  nameOf: () => string,
): Promise<Measured> {
  const times: number[] = [];
  const cpuBefore = cpuMs(child.pid ?? 0);
  for (let count = 0; count < names; count += 1) {
    const host = nameOf();
    const at = performance.now();
    const socket = await connect(port, host);
    await ask(socket, host);
    times.push(performance.now() - at);
    socket.destroy();
  }
  times.sort((a, b) => a - b);
  return {
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
  { name: "one by one, each to a host never seen", run: newHosts },
  { name: "one by one, through a tunnel that is not opened", run: passedThrough },
] as const;

const ours = await startOurs();
const results = new Map<string, Measured[]>(cases.map(({ name }) => [name, []]));
for (let round = 0; round < rounds; round += 1)
  for (const { name, run } of cases) results.get(name)?.push(await run(ours));
process.stdout.write(
  "| CONNECT, handshake, one GET 1 KiB | p50 ms | CPU µs |\n| --- | ---: | ---: |\n",
);
for (const [name, list] of results) {
  const middle = (key: keyof Measured): number =>
    list.map((one) => one[key]).sort((a, b) => a - b)[list.length >> 1] ?? Number.NaN;
  process.stdout.write(
    `| ${name} | ${middle("p50Ms").toFixed(2)} | ${middle("cpuUs").toFixed(0)} |\n`,
  );
}
ours.process.kill("SIGTERM");
origin.close();
origin.closeAllConnections();
rmSync(folder, { recursive: true, force: true });
