/**
 * The ways of asking for a tunnel, beside each other: SOCKS5 and CONNECT (a tunnel, one round trip, close), and plain HTTP
 * inside a CONNECT and in absolute form (requests on kept connections). `node bench/doors.ts [--rounds N]`; rounds are interleaved.
 */
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync, mkdtempSync } from "node:fs";
import { createServer } from "node:http";
import net, { type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "7" }, seconds: { type: "string", default: "2" } },
});
const [rounds, seconds] = [Number(values.rounds), Number(values.seconds)];
const clients = 16;
const ticksMs = 10;

const echo = net.createServer({ noDelay: true }, (socket) => {
  socket.on("error", () => undefined);
  socket.pipe(socket);
});
const web = createServer((_request, response) => response.end("x".repeat(1024)));
for (const server of [echo, web])
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
const portOf = (server: net.Server): number => (server.address() as AddressInfo).port;
const [echoPort, webPort] = [portOf(echo), portOf(web)];

const directory = mkdtempSync(join(tmpdir(), "authbridge-bench-"));
writeFileSync(
  join(directory, "proxy.yaml"),
  `listener: { roles: [forward], forward_proxy_addr: "127.0.0.1:0", transparent_proxy_addr: "off", health_addr: "127.0.0.1:0" }
stats: { address: "127.0.0.1:0" }
session: { enabled: false }
egress: { allow_ips: ["127.0.0.0/8"] }
pipeline: { outbound: { default: allow, plugins: [{ name: egress-policy, config: { allow: ["**"] } }] } }
`,
);
const child = spawn(process.execPath, ["dist/main.js", "--config", join(directory, "proxy.yaml")], {
  stdio: ["ignore", "pipe", "pipe"],
});
const port = await new Promise<number>((resolve) => {
  let text = "";
  const onData = (chunk: Buffer): void => {
    text = (text + chunk.toString()).slice(-65_536);
    const found = /"forward":\{"host":"[^"]*","port":(\d+)/.exec(text)?.[1];
    if (found !== undefined) resolve(Number(found));
  };
  child.stdout.on("data", onData);
  child.stderr.on("data", onData);
});

/** Processor time of the proxy so far. */
function cpuMs(): number {
  const fields = readFileSync(`/proc/${child.pid}/stat`, "latin1").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) * ticksMs;
}

/** Sends, and resolves once so many bytes have come. */
function exchange(socket: Socket, bytes: Buffer, expected: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let seen = 0;
    const onData = (chunk: Buffer): void => {
      seen += chunk.length;
      if (seen < expected) return;
      socket.off("data", onData);
      socket.off("close", onClose);
      resolve();
    };
    const onClose = (): void => reject(new Error(`closed after ${seen} bytes`));
    socket.on("data", onData);
    socket.once("close", onClose);
    socket.write(bytes);
  });
}

async function dial(): Promise<Socket> {
  const socket = net.connect({ host: "127.0.0.1", port, noDelay: true });
  socket.on("error", () => undefined);
  await new Promise((resolve) => socket.once("connect", resolve));
  return socket;
}

const target = `127.0.0.1:${echoPort}`;
const connectText = (authority: string): Buffer =>
  Buffer.from(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`);
const established = "HTTP/1.1 200 Connection Established\r\n\r\n".length;
const socksRequest = Buffer.of(5, 1, 0, 1, 127, 0, 0, 1, echoPort >> 8, echoPort & 0xff);
const ping = Buffer.from([0, 1, 2, 3]);

async function tunnel(open: (socket: Socket) => Promise<void>): Promise<void> {
  const socket = await dial();
  await open(socket);
  await exchange(socket, ping, ping.length);
  socket.destroy();
}

const byConnect = (): Promise<void> =>
  tunnel((socket) => exchange(socket, connectText(target), established));
const bySocks = (): Promise<void> =>
  tunnel(async (socket) => {
    await exchange(socket, Buffer.of(5, 1, 0), 2);
    await exchange(socket, socksRequest, 10);
  });

const authority = `127.0.0.1:${webPort}`;
const request = (form: string): Buffer =>
  Buffer.from(`GET ${form} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`);

/** Requests on kept connections; `prefix` is sent once on each. */
function requests(prefix: Buffer | undefined, form: string): () => Promise<() => Promise<void>> {
  return async () => {
    const socket = await dial();
    if (prefix !== undefined) await exchange(socket, prefix, established);
    const bytes = request(form);
    // Its length is the same for every response of one kind.
    const length = await new Promise<number>((resolve) => {
      socket.once("data", (chunk: Buffer) => setTimeout(() => resolve(chunk.length), 50));
      socket.write(bytes);
    });
    return () => exchange(socket, bytes, length);
  };
}

interface Figures {
  readonly rate: number;
  readonly cpuUs: number;
}

/** So many clients, one thing after the other each. */
async function measure(make: () => Promise<() => Promise<void>>): Promise<Figures> {
  const works = await Promise.all(Array.from({ length: clients }, make));
  const [startedAt, cpu] = [performance.now(), cpuMs()];
  let done = 0;
  await Promise.all(
    works.map(async (work) => {
      while (performance.now() - startedAt < seconds * 1_000) {
        await work();
        done += 1;
      }
    }),
  );
  const elapsed = (performance.now() - startedAt) / 1_000;
  return { rate: done / elapsed, cpuUs: ((cpuMs() - cpu) * 1_000) / done };
}

const cases: readonly (readonly [string, () => Promise<() => Promise<void>>])[] = [
  ["CONNECT tunnels", () => Promise.resolve(byConnect)],
  ["SOCKS5 tunnels", () => Promise.resolve(bySocks)],
  ["absolute form", requests(undefined, `http://${authority}/`)],
  ["HTTP in a CONNECT", requests(connectText(authority), "/")],
];
const seen = new Map<string, Figures[]>(cases.map(([name]) => [name, []]));
for (let round = -2; round < rounds; round += 1)
  for (const [name, make] of cases) {
    const figures = await measure(make);
    // Two rounds of warm-up.
    if (round >= 0) seen.get(name)?.push(figures);
  }

const median = (numbers: readonly number[]): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0;
process.stdout.write("| | per second | CPU µs of the proxy |\n| --- | ---: | ---: |\n");
for (const [name, figures] of seen) {
  const rate = median(figures.map((one) => one.rate)).toFixed(0);
  const cpu = median(figures.map((one) => one.cpuUs)).toFixed(0);
  process.stdout.write(`| ${name} | ${rate} | ${cpu} |\n`);
}
child.kill();
process.exit();
