/**
 * The attacks of a stranger, all at once, and whether everybody else is served meanwhile: a phase of `npm run soak`.
 *
 * The proxy has 1,024 file descriptors (`ulimit -n`) and must stay below 512 MiB. Each attack keeps as many connections
 * open as it is let, and opens another for each that is closed. Its clients come from 127.0.0.1, the good ones from
 * 127.0.0.2.
 */
import { type ChildProcess, spawn } from "node:child_process";
import dgram from "node:dgram";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import http2 from "node:http2";
import https from "node:https";
import net, { type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import tls from "node:tls";
import { Worker } from "node:worker_threads";
import { TestAuthority } from "../test/support/certs.ts";
import type { Places, Served } from "./witnesses.ts";

const descriptors = 1_024;
const mostBytes = 512 * 1_048_576;
/** What Node gives its heap by itself where a container has 512 MiB. */
const heapMebibytes = 256;
const large = Buffer.alloc(64 * 1_048_576, "x");
const stranger = "127.0.0.1";

type Addresses = Readonly<Record<string, { readonly port: number }>>;

/** One attack: connections that are held, and opened again when they are closed. */
interface Attack {
  readonly name: string;
  readonly width: number;
  /** How many are opened in all, at most. */
  readonly most?: number;
  open(number: number): Socket;
}

interface Held {
  readonly name: string;
  opened: number;
  open: number;
  mostOpen: number;
}

/** 6,144 streams that are refused come back at this pace. */
const retryMs = 10_000;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Everything that an attack needs beside the proxy. */
class Stage {
  readonly folder = mkdtempSync(join(tmpdir(), "authbridge-attacks-"));
  readonly origin = http.createServer((request, response) => {
    response.end(request.url === "/large" ? large : "ok");
  });
  /** A DNS server that hears everything and says nothing. */
  readonly dns = dgram.createSocket("udp4");
  secure = https.createServer();

  async open(): Promise<void> {
    const authority = await TestAuthority.create();
    writeFileSync(join(this.folder, "origin-ca.pem"), authority.caPem);
    const certificate = await authority.server(["localhost", "127.0.0.1"]);
    this.secure.setSecureContext(certificate);
    this.secure.on("request", (request, response: http.ServerResponse) => {
      // The attack's streams never end: nobody answers them.
      if (request.method === "GET") response.end("ok");
    });
    await new Promise<void>((resolve) => this.origin.listen(0, stranger, resolve));
    await new Promise<void>((resolve) => this.secure.listen(0, stranger, resolve));
    await new Promise<void>((resolve) => this.dns.bind(0, stranger, resolve));
  }

  get originPort(): number {
    return (this.origin.address() as AddressInfo).port;
  }

  get securePort(): number {
    return (this.secure.address() as AddressInfo).port;
  }

  config(): string {
    return `
listener:
  forward_proxy_addr: 127.0.0.1:0
  reverse_proxy_addr: 127.0.0.1:0
  reverse_proxy_backend: http://127.0.0.1:${this.originPort}
  session_api_addr: 127.0.0.1:0
  health_addr: 127.0.0.1:0
  transparent_proxy_addr: "off"
stats: { address: 127.0.0.1:0 }
egress:
  allow_ips: [127.0.0.0/8]
  dns_servers: ["127.0.0.1:${this.dns.address().port}"]
tls_bridge: { mode: enabled, ca: ephemeral, ports: [${this.securePort}], upstream_ca_bundle: ${this.folder}/origin-ca.pem }
# As the operations page says for this many descriptors; the bounds of bytes are small, so that they are reached.
limits:
  connect_timeout: 60s
  max_connections: 250
  max_upstream_connections: 200
  max_upstream_connections_per_destination: 150
  max_upstream_connections_per_caller: 100
  max_tunnels: 100
  max_buffered: 16MiB
  max_buffered_heads: 4MiB
pipeline:
  outbound:
    default: deny
    plugins:
      - name: egress-policy
        config: { allow: ["*.wild.test:80", "127.0.0.1:${this.originPort}", "127.0.0.1:${this.securePort}"] }
`;
  }

  close(): void {
    this.origin.closeAllConnections();
    this.origin.close();
    this.secure.closeAllConnections();
    this.secure.close();
    this.dns.close();
    rmSync(this.folder, { recursive: true });
  }
}

/** The proxy, under the limits of a small pod. */
class Attacked {
  readonly #child: ChildProcess;
  readonly faults: string[] = [];
  readonly #warned = new Map<string, number>();
  addresses: Addresses = {};

  constructor(file: string) {
    const command = `ulimit -n ${descriptors} && exec "$0" --max-old-space-size=${heapMebibytes} dist/main.js --config "$1"`;
    this.#child = spawn("sh", ["-c", command, process.execPath, file], {
      stdio: ["ignore", "ignore", "pipe"],
    });
  }

  ready(): Promise<void> {
    return new Promise((resolve, reject) => {
      let buffered = "";
      this.#child.stderr?.on("data", (chunk: Buffer) => {
        const lines = (buffered + chunk.toString()).split("\n");
        buffered = lines.pop() ?? "";
        for (const line of lines) {
          if (/uncaught|unhandled|exchange fault|plugin fault|listener fault/.test(line)) {
            this.faults.push(line);
          }
          const [, said = ""] =
            /"msg":"((?:connections are closed|a request found|look-ups)[^"]*)"/.exec(line) ?? [];
          if (said !== "") this.#warned.set(said, (this.#warned.get(said) ?? 0) + 1);
          if (!line.includes('"msg":"serving"')) continue;
          this.addresses = (JSON.parse(line) as { addresses: Addresses }).addresses;
          resolve();
        }
      });
      this.#child.once("exit", (code) => reject(new Error(`the proxy ended with ${code}`)));
    });
  }

  portOf(surface: string): number {
    return this.addresses[surface]?.port ?? 0;
  }

  /** Lines about a bound that was reached, by what they say. */
  get warned(): ReadonlyMap<string, number> {
    return this.#warned;
  }

  get rssBytes(): number {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) * 1_024;
  }

  get openDescriptors(): number {
    return readdirSync(`/proc/${this.#child.pid}/fd`).length;
  }

  async metrics(): Promise<string> {
    return (await fetch(`http://127.0.0.1:${this.portOf("stats")}/metrics`)).text();
  }

  /** The exit code; null where it had to be killed. */
  stop(): Promise<number | null> {
    return new Promise((resolve) => {
      const hard = setTimeout(() => this.#child.kill("SIGKILL"), 30_000);
      this.#child.once("exit", (code) => {
        clearTimeout(hard);
        resolve(code);
      });
      this.#child.kill("SIGTERM");
    });
  }
}

function connect(port: number): Socket {
  const socket = net.connect({ port, host: stranger, localAddress: stranger, allowHalfOpen: true });
  socket.on("error", () => socket.destroy());
  // A peer that keeps its half open for ever is one that has to be cut; here its place is wanted for the next one.
  socket.on("end", () => socket.destroy());
  return socket;
}

function attacksOn(proxy: Attacked, stage: Stage): Attack[] {
  const forward = proxy.portOf("forward");
  const reverse = proxy.portOf("reverse");
  const head = `GET / HTTP/1.1\r\nHost: a.test\r\nX-Much: ${"y".repeat(64_000)}`;
  const origin = `127.0.0.1:${stage.originPort}`;
  const secure = `127.0.0.1:${stage.securePort}`;
  return [
    {
      name: "unique names under an allowed wildcard whose DNS is silent",
      width: 40,
      open(number) {
        const socket = connect(forward);
        let asked = 0;
        const ask = (): void => {
          asked += 1;
          const name = `n${number}-${asked}.wild.test`;
          socket.write(`GET http://${name}/ HTTP/1.1\r\nHost: ${name}\r\n\r\n`);
        };
        ask();
        // Whatever the answer was, there are more names.
        return socket.on("data", () => void setTimeout(ask, 50));
      },
    },
    {
      name: "silent connections to the health port",
      width: 128,
      open: () => connect(proxy.portOf("health")).resume(),
    },
    {
      name: "bridged HTTP/2 connections of 256 POST heads each",
      width: 24,
      open() {
        const socket = connect(forward);
        socket.write(`CONNECT ${secure} HTTP/1.1\r\nHost: ${secure}\r\n\r\n`);
        socket.once("data", () => floodStreams(socket, secure));
        return socket;
      },
    },
    {
      name: "connections that stop inside a head of 64 KiB",
      width: 120,
      most: 10_000,
      open(number) {
        const socket = connect(number % 2 === 0 ? forward : reverse);
        socket.write(head);
        return socket.resume();
      },
    },
    {
      name: "readers of 64 MiB that read one packet and stop",
      width: 100,
      open(number) {
        const isForward = number % 4 === 0;
        const socket = connect(isForward ? forward : reverse);
        const target = isForward ? `http://${origin}/large` : "/large";
        socket.write(`GET ${target} HTTP/1.1\r\nHost: ${origin}\r\n\r\n`);
        socket.once("data", () => socket.pause());
        return socket;
      },
    },
  ];
}

function floodStreams(socket: Socket, authority: string): void {
  const secured = tls.connect({ socket, ALPNProtocols: ["h2"], rejectUnauthorized: false });
  secured.on("error", () => socket.destroy());
  secured.once("secureConnect", () => {
    const session = http2.connect(`https://${authority}`, { createConnection: () => secured });
    session.on("error", () => socket.destroy());
    session.on("close", () => socket.destroy());
    const open = (): void => {
      if (session.closed || session.destroyed) return;
      const stream = session.request({ ":method": "POST", ":path": "/" }, { endStream: false });
      // One that was refused is opened again.
      stream.on("error", () => undefined).on("close", () => void setTimeout(open, retryMs));
      stream.resume();
    };
    for (let stream = 0; stream < 256; stream += 1) open();
  });
}

/** Keeps the attack's connections open until `isOver`. */
async function hold(attack: Attack, held: Held, isOver: () => boolean): Promise<void> {
  const sockets = new Set<Socket>();
  let probedAt = 0;
  while (!isOver()) {
    while (sockets.size < attack.width && held.opened < (attack.most ?? Number.POSITIVE_INFINITY)) {
      const socket = attack.open(held.opened);
      held.opened += 1;
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
    }
    held.open = sockets.size;
    held.mostOpen = Math.max(held.mostOpen, sockets.size);
    if (performance.now() - probedAt > 1_000) {
      probedAt = performance.now();
      // Who does not read hears of a reset only by writing; a parser passes over an empty line.
      for (const socket of sockets) if (socket.isPaused()) socket.write("\r\n");
    }
    await pause(20);
  }
  for (const socket of sockets) socket.resetAndDestroy();
}

function placesOf(proxy: Attacked, stage: Stage): Places {
  return {
    forward: proxy.portOf("forward"),
    reverse: proxy.portOf("reverse"),
    health: proxy.portOf("health"),
    stats: proxy.portOf("stats"),
    sessions: proxy.portOf("sessions"),
    origin: `127.0.0.1:${stage.originPort}`,
    secureOrigin: `127.0.0.1:${stage.securePort}`,
  };
}

/** Runs the attacks for so long and prints the figures; true where everybody else was served. */
export async function attackPhase(seconds: number): Promise<boolean> {
  const stage = new Stage();
  await stage.open();
  const file = join(stage.folder, "config.yaml");
  writeFileSync(file, stage.config());
  const proxy = new Attacked(file);
  await proxy.ready();
  const atRest = proxy.rssBytes;
  let isOver = false;
  let mostRss = 0;
  let mostDescriptors = 0;
  const ended = (): boolean => isOver;
  const held: Held[] = [];
  const witnesses = new Worker(new URL("witnesses.ts", import.meta.url), {
    workerData: placesOf(proxy, stage),
  });
  const testimony = new Promise<readonly Served[]>((resolve, reject) => {
    witnesses.once("message", resolve);
    witnesses.once("error", reject);
  });
  const attacks = attacksOn(proxy, stage).map((attack) => {
    const counts: Held = { name: attack.name, opened: 0, open: 0, mostOpen: 0 };
    held.push(counts);
    return hold(attack, counts, ended);
  });
  const endAt = performance.now() + seconds * 1_000;
  while (performance.now() < endAt) {
    mostRss = Math.max(mostRss, proxy.rssBytes);
    mostDescriptors = Math.max(mostDescriptors, proxy.openDescriptors);
    await pause(50);
  }
  const counted = (await proxy.metrics())
    .split("\n")
    .filter((line) => /^authbridge_(?:evicted|refused|upstream_refused)_total\S* [1-9]/.test(line));
  witnesses.postMessage("over", []);
  const served = await testimony;
  isOver = true;
  await Promise.all(attacks);
  const code = await proxy.stop();
  stage.close();
  report({ held, served, counted, warned: proxy.warned });
  const mebibytes = (bytes: number): string => (bytes / 1_048_576).toFixed(0);
  process.stdout.write(
    `\nRSS ${mebibytes(atRest)} MiB at rest, ${mebibytes(mostRss)} MiB at most; ${mostDescriptors} of ${descriptors} descriptors at most; ${proxy.faults.length} faults in the log; exit code ${code}\n`,
  );
  for (const fault of proxy.faults.slice(0, 5)) process.stdout.write(`${fault}\n`);
  const failures = served.reduce((sum, { failed }) => sum + failed, 0);
  const isEverybodyServed = failures === 0 && served.every(({ asked }) => asked > 0);
  return isEverybodyServed && mostRss < mostBytes && proxy.faults.length === 0 && code === 0;
}

function whyOf({ firstFailure }: Served): string {
  return firstFailure === undefined ? "" : ` (${firstFailure})`;
}

function report(figures: {
  readonly held: readonly Held[];
  readonly served: readonly Served[];
  readonly counted: readonly string[];
  readonly warned: ReadonlyMap<string, number>;
}): void {
  const lines = [
    "",
    "| attack | held at most | opened |",
    "| :-- | --: | --: |",
    ...figures.held.map((one) => `| ${one.name} | ${one.mostOpen} | ${one.opened} |`),
    "",
    "| meanwhile | asked | failed | median ms | slowest ms |",
    "| :-- | --: | --: | --: | --: |",
    ...figures.served.map(
      (one) =>
        `| ${one.name} | ${one.asked} | ${one.failed}${whyOf(one)} | ${one.medianMs.toFixed(0)} | ${one.slowestMs.toFixed(0)} |`,
    ),
    "",
    ...figures.counted.map((line) => `    ${line}`),
    ...[...figures.warned].map(([said, times]) => `    logged ${times}: ${said}`),
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}
