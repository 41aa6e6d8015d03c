/**
 * `node bench/chain.ts`: this program through a squid as its parent, beside squid through the same squid.
 *
 * All processes are on loopback; rounds are interleaved, figures are medians.
 */
import { chmodSync, readdirSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { Child, onPath, pinning } from "./child.ts";
import type { LoadCommand, LoadResult } from "./load/command.ts";
import { freePorts, Stage } from "./stage.ts";

const ROUNDS = 5;
const SECONDS = 1;
const CLIENTS = 16;
const READY_TIMEOUT_MS = 15_000;

if (!onPath("squid")) {
  process.stdout.write("SKIPPED: squid is not on PATH\n");
  process.exit(0);
}

const shared = (): string[] => readdirSync("/dev/shm").filter((name) => name.startsWith("squid-"));
const older = new Set(shared());
const stage = await Stage.open();
// squid drops to its own user and must be able to write here.
chmodSync(stage.directory, 0o755);
const load = new Child("bench", join(stage.directory, "load.log"), process.execPath, [
  join(import.meta.dirname, "load.ts"),
]);

async function started(name: string, port: number, child: Child): Promise<Child> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    const isOpen = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.on("connect", () => resolve(true)).on("error", () => resolve(false));
      socket.on("connect", () => socket.destroy());
    });
    if (isOpen) return child;
    if (child.exited !== undefined || performance.now() > deadline)
      throw new Error(`${name}: ${child.exited ?? "does not listen"} ${child.stderr.slice(-300)}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function squid(file: string, side: "proxy" | "bench", port: number, parent = 0) {
  const place = stage.place(file);
  chmodSync(place, 0o777);
  const path = stage.configure(file, place, { PORT: port, PARENT_PORT: parent, DIR: place });
  const argv = ["-N", "-f", path];
  return started("squid", port, new Child(side, join(place, "stderr"), "squid", argv));
}

async function ours(file: string, port: number, parent: number): Promise<Child> {
  const place = stage.place(file);
  const path = stage.configure(file, place, { PORT: port, PARENT_PORT: parent });
  const main = join(import.meta.dirname, "..", "dist", "main.js");
  const child = new Child("proxy", join(place, "stderr"), process.execPath, [
    main,
    "--config",
    path,
  ]);
  return started("authbridge", port, child);
}

const [parent = 0, chained = 0, peer = 0] = await freePorts(3);
const children = [
  await squid("squid.conf", "bench", parent),
  await ours("forward-chained.yaml", chained, parent),
  await squid("squid-chained.conf", "proxy", peer, parent),
];
const contestants = { authbridge: chained, squid: peer } as const;

const authority = `127.0.0.1:${stage.originRaw}`;
const host = `127.0.0.1:${stage.originHttp}`;
const cases: Readonly<Record<string, { unit: string; make: (port: number) => LoadCommand }>> = {
  "GET 1 KiB, 16 connections": {
    unit: "req/s",
    make: (port) => ({
      mode: "http",
      port,
      head: `GET http://${host}/1k HTTP/1.1\r\nHost: ${host}\r\n`,
      bodyBytes: 0,
      expectBytes: 1024,
      connections: CLIENTS,
      seconds: SECONDS,
    }),
  },
  "tunnels with one round trip, 16 at a time": {
    unit: "tunnels/s",
    make: (port) => ({ mode: "tunnels", port, authority, connections: CLIENTS, seconds: SECONDS }),
  },
  "one tunnel at a time": {
    unit: "tunnels/s",
    make: (port) => ({ mode: "tunnels", port, authority, connections: 1, seconds: SECONDS }),
  },
  "bytes down through 8 tunnels": {
    unit: "MB/s",
    make: (port) => ({
      mode: "bulk",
      direction: "down",
      port,
      authority,
      connections: 8,
      seconds: SECONDS,
    }),
  },
};

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;

async function measured(command: LoadCommand): Promise<LoadResult> {
  const answer = await load.ask<LoadResult | { error: string }>(command, 60_000);
  if ("error" in answer) throw new Error(answer.error);
  if (answer.failed > 0) throw new Error(answer.firstFailure ?? "failed");
  return answer;
}

process.stdout.write(`${pinning}; ${ROUNDS} rounds of ${SECONDS} s\n\n`);
try {
  for (const [title, { unit, make }] of Object.entries(cases)) {
    const rates: Record<string, number[]> = {};
    const p50s: Record<string, number[]> = {};
    for (let round = 0; round <= ROUNDS; round += 1) {
      for (const [name, port] of Object.entries(contestants)) {
        const { count, seconds, p50Ms } = await measured(make(port));
        // The first round warms up.
        if (round === 0) continue;
        (rates[name] ??= []).push(count / seconds / (unit === "MB/s" ? 1e6 : 1));
        (p50s[name] ??= []).push(p50Ms);
      }
    }
    const rate = (name: string): number => median(rates[name] ?? []);
    const ratio = rate("authbridge") / rate("squid");
    const cells = Object.keys(contestants).map(
      (name) =>
        `${name} ${rate(name).toFixed(0)} ${unit} (p50 ${median(p50s[name] ?? []).toFixed(2)} ms)`,
    );
    process.stdout.write(`${title}: ${cells.join(", ")}: ${ratio.toFixed(2)} of squid's\n`);
  }
} finally {
  for (const child of [...children, load]) await child.stop();
  await stage.close();
  for (const name of shared())
    if (!older.has(name)) rmSync(join("/dev/shm", name), { force: true });
}
