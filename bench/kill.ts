/**
 * How long the kill switch takes: `node bench/kill.ts [ROUNDS]`.
 *
 * 2,000 tunnels and 500 event streams are open with traffic in them; the times are from sending POST /v1/kill until a
 * client got its last byte, and until the last client has seen the end of its connection; beside them is the proxy's own
 * figure, from the order until every thread forwards nothing more. Clients and origin are this process, the proxy another
 * one, so that whatever this process is late with is in the first two.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Child } from "./child.ts";
import { startProxy } from "./proxy-child.ts";
import { freePorts } from "./stage.ts";

const tunnels = 2_000;
const streams = 500;
const rounds = Number(process.argv[2] ?? 5);
const tickMs = 200;
const batch = 100;

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", 8_192, resolve));
  return (server.address() as AddressInfo).port;
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
  socket.resume();
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

const echo = createServer((socket) => {
  socket.on("error", () => socket.destroy());
  socket.pipe(socket);
});
const events = createHttpServer((_, response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  response.write("data: first\n\n");
  const timer = setInterval(() => response.write("data: one more event\n\n"), tickMs);
  response.on("close", () => clearInterval(timer));
});
const echoPort = await listening(echo);
const eventsPort = await listening(events);

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
  /** Until the last client saw its end. */
  readonly lastMs: number;
  /** Until the proxy said that everything is cut. */
  readonly replyMs: number;
  /** As the proxy says. */
  readonly tookMs: number;
  /** Until a client got its last byte. */
  readonly byteMs: number;
  readonly proxyCpuMs: number;
}

async function killed(proxy: Proxy): Promise<Took> {
  const there = `127.0.0.1:${echoPort}`;
  const stream = `127.0.0.1:${eventsPort}`;
  const sockets = [
    ...(await many(tunnels, () =>
      opened(proxy.forward, `CONNECT ${there} HTTP/1.1\r\nHost: ${there}\r\n\r\n`),
    )),
    ...(await many(streams, () =>
      opened(proxy.forward, `GET http://${stream}/ HTTP/1.1\r\nHost: ${stream}\r\n\r\n`),
    )),
  ];
  const talk = setInterval(() => {
    for (const socket of sockets.slice(0, tunnels)) if (socket.writable) socket.write("some words");
  }, tickMs * 5);
  await new Promise((resolve) => setTimeout(resolve, tickMs * 15));
  let open = sockets.filter(({ closed }) => !closed).length;
  if (open < tunnels + streams) throw new Error(`only ${open} stayed open`);
  const ended = new Promise<number>((resolve) => {
    for (const socket of sockets) {
      socket.once("close", () => {
        open -= 1;
        if (open === 0) resolve(performance.now());
      });
    }
  });
  let byteAt = 0;
  for (const socket of sockets) socket.on("data", () => (byteAt = performance.now()));
  const before = proxy.child.usage().cpuMs;
  const start = performance.now();
  const reply = await post(proxy, "/v1/kill");
  const replyMs = performance.now() - start;
  if (reply["cut"] !== tunnels + streams) throw new Error(`cut: ${JSON.stringify(reply)}`);
  const lastMs = (await ended) - start;
  const proxyCpuMs = proxy.child.usage().cpuMs - before;
  clearInterval(talk);
  await post(proxy, "/v1/kill/release");
  return {
    lastMs,
    replyMs,
    proxyCpuMs,
    byteMs: Math.max(0, byteAt - start),
    tookMs: Number(reply["tookMs"]),
  };
}

for (const workers of [1, 2]) {
  const proxy = await start(workers);
  const took: Took[] = [];
  for (let round = 0; round < rounds; round += 1) took.push(await killed(proxy));
  const shown = (key: keyof Took): string =>
    took
      .map((one) => one[key].toFixed(0))
      .sort((a, b) => Number(a) - Number(b))
      .join(" ");
  process.stdout.write(
    `workers: ${workers}  nothing forwarded, ms: ${shown("tookMs")}  last byte, ms: ${shown("byteMs")}  last end, ms: ${shown("lastMs")}  reply, ms: ${shown("replyMs")}  CPU of the proxy, ms: ${shown("proxyCpuMs")}\n`,
  );
  await proxy.child.stop();
}
rmSync(directory, { recursive: true, force: true });
process.exit(0);
