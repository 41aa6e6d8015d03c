/**
 * How long the kill switch takes: `node bench/kill.ts [ROUNDS]`.
 *
 * 2,000 tunnels and 500 event streams are open with traffic in both directions. The times are from sending POST /v1/kill:
 * until the proxy says that every thread forwards nothing more (its own figure), until its reply is here, until a client and
 * until an origin got its last byte, and until the last client has seen the end of its connection. Clients are this process,
 * the origin and the proxy two others, so that whatever this one is late with is in all but the first. Everything that is
 * said carries the time at which it was; what was said on either side after the reply and arrived on the other must be 0,
 * and both sides say something on every connection that they take for open then.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Child } from "./child.ts";
import { startProxy } from "./proxy-child.ts";
import { freePorts } from "./stage.ts";
import { Heard, now, stamp } from "./stamps.ts";

const tunnels = 2_000;
const streams = 500;
const rounds = Number(process.argv[2] ?? 5);
const tickMs = 1_000;
const batch = 100;
const answerMs = 10_000;

/** What the clients have heard. */
const heard = new Heard();

interface OriginReport {
  readonly open: number;
  readonly lastByteAt: number;
  readonly late: number;
}

/** Resolves once the first bytes of a good response are there. */
async function opened(port: number, head: string): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    socket.once("close", () => reject(new Error("closed before its response")));
    socket.once("data", (bytes: Buffer) => {
      const text = bytes.toString("latin1");
      if (text.startsWith("HTTP/1.1 200")) resolve();
      else reject(new Error(text));
    });
    socket.write(head);
  });
  let rest = "";
  socket.on("data", (chunk) => (rest = heard.take(rest, chunk)));
  return socket;
}

async function many(count: number, open: () => Promise<Socket>): Promise<Socket[]> {
  const sockets: Socket[] = [];
  while (sockets.length < count) {
    sockets.push(...(await Promise.all(Array.from({ length: batch }, open))));
  }
  return sockets;
}

const directory = mkdtempSync(join(tmpdir(), "authbridge-bench-"));
const secret = "bench-secret";
const secretFile = join(directory, "secret");
writeFileSync(secretFile, secret);

const origin = new Child("bench", join(directory, "origin.log"), process.execPath, [
  join(import.meta.dirname, "kill-origin.ts"),
]);
const { tunnels: tunnelPort = 0, events: eventsPort = 0 } = await origin.ports();
const tellOrigin = (command: object): Promise<OriginReport> => origin.ask(command, answerMs);

interface Proxy {
  readonly child: Child;
  readonly forward: number;
  readonly sessions: number;
}

async function start(workers: number): Promise<Proxy> {
  const [forward = 0, sessions = 0, health = 0, stats = 0] = await freePorts(4);
  const config = {
    workers,
    listener: {
      roles: ["forward"],
      forward_proxy_addr: `127.0.0.1:${forward}`,
      session_api_addr: `127.0.0.1:${sessions}`,
      health_addr: `127.0.0.1:${health}`,
      transparent_proxy_addr: "off",
    },
    stats: { address: `127.0.0.1:${stats}` },
    session: { api_secret_file: secretFile },
    egress: { allow_ips: ["127.0.0.0/8"] },
    limits: {
      max_tunnels: 10_000,
      max_connections: 20_000,
      max_upstream_connections: 4_000,
      max_upstream_connections_per_caller: 4_000,
    },
  };
  const child = await startProxy(directory, `kill-${workers}`, config, health);
  return { child, forward, sessions };
}

async function post({ sessions }: Proxy, path: string): Promise<Record<string, unknown>> {
  const response = await fetch(`http://127.0.0.1:${sessions}${path}`, {
    method: "POST",
    headers: { Authorization: `Bearer ${secret}` },
    body: new URLSearchParams({ scope: "all" }),
  });
  return (await response.json()) as Record<string, unknown>;
}

interface Took {
  /** As the proxy says. */
  readonly tookMs: number;
  /** Until the proxy's reply was here. */
  readonly replyMs: number;
  /** Until a client, and an origin, got its last byte. */
  readonly clientByteMs: number;
  readonly originByteMs: number;
  /** Until the last client saw its end. */
  readonly lastMs: number;
  /** What either side said after the reply and the other heard. */
  readonly late: number;
  /** On how many connections it was said. */
  readonly saidLate: number;
  readonly proxyCpuMs: number;
}

async function killed(proxy: Proxy): Promise<Took> {
  const there = `127.0.0.1:${tunnelPort}`;
  const stream = `127.0.0.1:${eventsPort}`;
  const sockets = [
    ...(await many(tunnels, () =>
      opened(proxy.forward, `CONNECT ${there} HTTP/1.1\r\nHost: ${there}\r\n\r\n`),
    )),
    ...(await many(streams, () =>
      opened(proxy.forward, `GET http://${stream}/ HTTP/1.1\r\nHost: ${stream}\r\n\r\n`),
    )),
  ];
  const talk = (): number => {
    const talking = sockets.slice(0, tunnels).filter(({ writable }) => writable);
    for (const socket of talking) socket.write(stamp());
    return talking.length;
  };
  const talks = setInterval(talk, tickMs);
  await new Promise((resolve) => setTimeout(resolve, tickMs * 3));
  let open = sockets.filter(({ closed }) => !closed).length;
  if (open < tunnels + streams) throw new Error(`only ${open} stayed open`);
  const ended = new Promise<number>((resolve) => {
    for (const socket of sockets) {
      socket.once("close", () => {
        open -= 1;
        if (open === 0) resolve(now());
      });
    }
  });
  await tellOrigin({ clear: true });
  heard.clear();
  const before = proxy.child.usage().cpuMs;
  const start = now();
  const reply = await post(proxy, "/v1/kill");
  const repliedAt = now();
  const saidByClients = talk();
  const saidByOrigin = (await tellOrigin({ late: true })).open;
  if (reply["cut"] !== tunnels + streams) throw new Error(`cut: ${JSON.stringify(reply)}`);
  const lastMs = (await ended) - start;
  const proxyCpuMs = proxy.child.usage().cpuMs - before;
  clearInterval(talks);
  // Until the origin has seen the end of all of them.
  let report = await tellOrigin({ after: repliedAt });
  while (report.open > 0) report = await tellOrigin({ after: repliedAt });
  await post(proxy, "/v1/kill/release");
  return {
    tookMs: Number(reply["tookMs"]),
    replyMs: repliedAt - start,
    clientByteMs: Math.max(0, heard.lastByteAt - start),
    originByteMs: Math.max(0, report.lastByteAt - start),
    lastMs,
    late: report.late + heard.saidAfter(repliedAt),
    saidLate: saidByClients + saidByOrigin,
    proxyCpuMs,
  };
}

const names: Readonly<Record<keyof Took, string>> = {
  tookMs: "nothing forwarded",
  replyMs: "reply",
  clientByteMs: "last byte at a client",
  originByteMs: "last byte at the origin",
  lastMs: "last end",
  saidLate: "said after the reply",
  late: "of that heard",
  proxyCpuMs: "CPU of the proxy",
};

for (const workers of [1, 2]) {
  const proxy = await start(workers);
  const took: Took[] = [];
  for (let round = 0; round < rounds; round += 1) took.push(await killed(proxy));
  process.stdout.write(`workers: ${workers}\n`);
  for (const [key, name] of Object.entries(names)) {
    const figures = took.map((one) => Math.round(one[key as keyof Took])).sort((a, b) => a - b);
    process.stdout.write(`  ${name.padEnd(24)}${figures.join(" ")}\n`);
  }
  await proxy.child.stop();
}
await origin.stop();
rmSync(directory, { recursive: true, force: true });
process.exit(0);
