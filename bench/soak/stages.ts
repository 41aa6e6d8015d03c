/** The stages of a soak. Each has a proxy of its own, does what its name says, and books what came of it. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import type { RawClient } from "../../test/support/http-client.ts";
import { openTunnel } from "../../test/support/http-client.ts";
import { eventually } from "../../test/support/eventually.ts";
import { merge, ProxyProcess } from "../../test/support/proxy.ts";
import type { ProcessOptions, Settings } from "../../test/support/program.ts";
import { end, type Extent, type Ground, hear, hearLog, takeStock } from "./ground.ts";
import type { Ledger } from "./ledger.ts";
import { ask, inParallel, Mix } from "./mix.ts";
import { bytesOf, digestOf, type Mood, type Party } from "./parties.ts";

export type Figures = Readonly<Record<string, number | string>>;

export interface Stage {
  readonly name: string;
  run(ground: Ground, ledger: Ledger, extent: Extent): Promise<Figures>;
}

const width = 24;

/** Open files that this process may have, some kept for its own use. */
function spareDescriptors(): number {
  const limits = readFileSync("/proc/self/limits", "utf8");
  return Number(/Max open files\s+(\d+)/.exec(limits)?.[1] ?? 1_024) - 1_000;
}

/** (a) Tunnels that stay open and clients that wait, while others are served. */
const crowd: Stage = {
  name: "open tunnels, waiting clients",
  async run(ground, ledger, extent) {
    const idleCount = extent.idle;
    // Both ends of a tunnel are in this process.
    const most = Math.floor((spareDescriptors() - 2 * idleCount) / 2);
    const tunnelCount = Math.min(extent.tunnels, most);
    const roomy = {
      max_connections: 40_000,
      max_tunnels: 20_000,
      max_upstream_connections: 20_000,
    };
    const config = ground.file({
      limits: {
        ...roomy,
        max_upstream_connections_per_destination: 20_000,
        max_upstream_connections_per_caller: 20_000,
      },
    });
    const proxy = await ProxyProcess.start(config);
    const mix = await Mix.start(ground, proxy);
    const share = Math.ceil(extent.requests / 20 / extent.cycles);
    let mostMiB = 0;
    for (let cycle = 0; cycle < extent.cycles; cycle += 1) {
      const tunnels = await openTunnels(ground, proxy, tunnelCount, ledger);
      const agent = new http.Agent({ keepAlive: true, maxSockets: 200_000 });
      const waiting = Array.from({ length: idleCount }, (_, seed) =>
        askBytes(ground, proxy, seed, agent),
      );
      for (const [seed, answer] of (await Promise.all(waiting)).entries()) {
        ledger.answered("a client that then waits", answer, [200], digestOf(bytesOf(seed)));
      }
      await inParallel(share, 200, (index) => mix.one(cycle * share + index, ledger));
      mostMiB = Math.max(mostMiB, residentMiB(proxy));
      await inParallel(tunnels.length, width, async (at) => echoOn(tunnels[at], at, ledger));
      for (const tunnel of tunnels) tunnel.close();
      agent.destroy();
      mix.close();
      await takeStock(proxy, ledger);
    }
    await hear(proxy, ledger);
    await end(proxy, ledger);
    return { tunnels: tunnelCount, idle: idleCount, "MiB at most": mostMiB.toFixed(0) };
  },
};

function residentMiB(proxy: ProxyProcess): number {
  const status = readFileSync(`/proc/${proxy.pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1_024;
}

async function openTunnels(
  ground: Ground,
  proxy: ProxyProcess,
  count: number,
  ledger: Ledger,
): Promise<RawClient[]> {
  const tunnels: RawClient[] = [];
  await inParallel(count, 64, async () => {
    const authority = `127.0.0.1:${ground.parties.echoPort}`;
    const { client, answer } = await openTunnel(proxy.forward, authority);
    ledger.answered("a tunnel that stays", { status: answer.status }, [200]);
    tunnels.push(client);
  });
  return tunnels;
}

async function echoOn(tunnel: RawClient | undefined, seed: number, ledger: Ledger): Promise<void> {
  const due = bytesOf(seed).subarray(0, 512);
  const back = await tunnel
    ?.send(due)
    .reader.exactly(due.length)
    .catch(() => undefined);
  const answer = back === undefined ? { status: 0 } : { status: 200, digest: digestOf(back) };
  ledger.answered("a tunnel that waited", answer, [200], digestOf(due));
}

function askBytes(
  ground: Ground,
  proxy: ProxyProcess,
  seed: number,
  agent: http.Agent | false = false,
  party: Party = ground.parties.origin,
): ReturnType<typeof ask> {
  const authority = `127.0.0.1:${party.port}`;
  return ask({
    port: proxy.forward.port,
    path: `http://${authority}/bytes/${seed}`,
    agent,
    headers: { Host: authority },
  });
}

/** (b) Every kind of request, with digests. */
const mixed: Stage = {
  name: "mixed requests",
  async run(ground, ledger, extent) {
    const proxy = await ProxyProcess.start(ground.file());
    const mix = await Mix.start(ground, proxy);
    const share = Math.ceil(extent.requests / extent.cycles);
    const startedAt = performance.now();
    for (let cycle = 0; cycle < extent.cycles; cycle += 1) {
      await mix.run(share, width, ledger, cycle * share);
      mix.close();
      await takeStock(proxy, ledger);
    }
    const rate = (share * extent.cycles * 1_000) / (performance.now() - startedAt);
    await hear(proxy, ledger);
    await end(proxy, ledger);
    return { kinds: mix.counts.size, "per s": rate.toFixed(0) };
  },
};

/** (c) The file changes under traffic, every third time to one that is refused. */
const reloads: Stage = {
  name: "reloads, valid and invalid",
  async run(ground, ledger, extent) {
    const proxy = await ProxyProcess.start(ground.file());
    const mix = await Mix.start(ground, proxy);
    const perCycle = Math.ceil(extent.reloads / extent.cycles);
    let refused = 0;
    let asked = 0;
    for (let cycle = 0; cycle < extent.cycles; cycle += 1) {
      const during = new AbortController();
      const traffic = inParallel(width, width, async () => {
        while (!during.signal.aborted) {
          asked += 1;
          await mix.one(asked, ledger);
        }
      });
      for (let at = 0; at < perCycle; at += 1) {
        const number = cycle * perCycle + at;
        const next = ground.file({ limits: { drain_timeout: `${5_000 + number}ms` } });
        if (number % 3 === 2) {
          await proxy.refusedReload(merge(next, { limits: { max_tunnels: -1 } }));
          refused += 1;
        } else await proxy.reload(next);
      }
      during.abort();
      await traffic;
      mix.close();
      await takeStock(proxy, ledger);
    }
    await hear(proxy, ledger);
    await end(proxy, ledger);
    return { reloads: perCycle * extent.cycles, refused };
  },
};

interface Needy {
  readonly name: string;
  readonly party: Party;
  ask(number: number, leaveMs?: number): ReturnType<typeof ask>;
}

/** Whoever needs a party, by the way that its requests go. */
function needy(ground: Ground, proxy: ProxyProcess): Needy[] {
  const { parties } = ground;
  const forward = (host: string, number: number, leaveMs?: number, headers = {}) =>
    ask(
      {
        port: proxy.forward.port,
        path: `http://${host}/bytes/${number}`,
        agent: false,
        headers: { Host: host, ...headers },
      },
      undefined,
      leaveMs,
    );
  const inbound = async (number: number, leaveMs?: number) =>
    ask(
      {
        port: proxy.reverse.port,
        path: `/bytes/${number}`,
        agent: false,
        headers: { Authorization: `Bearer ${await parties.token(`needy-${number}`)}` },
      },
      undefined,
      leaveMs,
    );
  return [
    {
      name: "origin",
      party: parties.doomed,
      ask: (number, leaveMs) => forward(`127.0.0.1:${parties.doomed.port}`, number, leaveMs),
    },
    { name: "backend", party: parties.backend, ask: inbound },
    { name: "OPA", party: parties.opa, ask: inbound },
    {
      name: "parent",
      party: parties.parent,
      ask: (number, leaveMs) => forward("parented.test:80", number, leaveMs),
    },
    {
      name: "IdP",
      party: parties.idp,
      ask: async (number, leaveMs) =>
        forward(`exchanged.test:${parties.origin.port}`, number, leaveMs, {
          Authorization: `Bearer ${await parties.token(`exchanged-${number}`)}`,
        }),
    },
  ];
}

const moods: readonly (Mood | "dead")[] = ["dead", "hung", "slow", "resetting"];
const failures = [0, 403, 500, 502, 503, 504];

/** (d) Each party dies, hangs, is slow and resets; who does not need it is served as ever. */
const partiesFail: Stage = {
  name: "parties dead, hung, slow, resetting",
  async run(ground, ledger, extent) {
    const judged = {
      name: "opa",
      config: {
        server_url: `http://127.0.0.1:${ground.parties.opa.port}`,
        decision_log: { enabled: false },
      },
    };
    const base = ground.file();
    const { inbound } = base["pipeline"] as {
      readonly inbound: { readonly plugins: readonly Settings[] };
    };
    const plugins = [...inbound.plugins, judged];
    const proxy = await ProxyProcess.start(merge(base, { pipeline: { inbound: { plugins } } }));
    let failed = 0;
    let number = 0;
    for (let cycle = 0; cycle < extent.cycles; cycle += 1) {
      for (const one of needy(ground, proxy)) {
        for (const mood of moods) {
          const [first, last] = [number, number + 8];
          number = last;
          await strike(one.party, mood);
          const bystanders = Array.from({ length: 8 }, (_, seed) => askBytes(ground, proxy, seed));
          const leaveMs = mood === "hung" ? 1_000 : 60_000;
          const dying = Array.from({ length: last - first }, (_, at) =>
            one.ask(first + at, leaveMs),
          );
          for (const answer of await Promise.all(dying)) {
            const due = mood === "slow" ? [200] : mood === "hung" ? [-1, ...failures] : failures;
            if (answer.status !== 200) failed += 1;
            ledger.answered(`a request with its ${one.name} ${mood}`, answer, due);
          }
          for (const [seed, answer] of (await Promise.all(bystanders)).entries()) {
            const what = `a bystander with the ${one.name} ${mood}`;
            ledger.answered(what, answer, [200], digestOf(bytesOf(seed)));
          }
          await heal(one.party, mood);
          number += 1;
          await eventually(async () => {
            number += 1;
            const { status } = await one.ask(number, 5_000);
            if (status >= 400) ledger.refusalsSeen += 1;
            return status === 200;
          }, 60_000).catch(() =>
            ledger.lost(`the ${one.name} was ${mood}, is well, and is not used`),
          );
        }
      }
      await takeStock(proxy, ledger);
    }
    await hear(proxy, ledger);
    await end(proxy, ledger);
    return { failures: moods.length * 5 * extent.cycles, "needed the party": failed };
  },
};

async function strike(party: Party, mood: Mood | "dead"): Promise<void> {
  if (mood === "dead") await party.kill();
  else party.mood = mood;
}

async function heal(party: Party, mood: Mood | "dead"): Promise<void> {
  party.mood = "well";
  if (mood === "dead") await party.start();
  for (const response of party.held.splice(0)) response.destroy();
}

/** A disk of 64 KiB where this may be mounted, else the device that is always full. */
function smallDisk(ground: Ground): {
  readonly at: string;
  readonly events: string;
  leave(): void;
} {
  const at = ground.path("disk");
  mkdirSync(at);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "none", at], { stdio: "ignore" });
    return {
      at: `${at}/audit.jsonl`,
      events: `${at}/events.jsonl`,
      leave: () => execFileSync("umount", ["-l", at]),
    };
  } catch {
    return { at: "/dev/full", events: "/proc/nowhere/events.jsonl", leave: () => undefined };
  }
}

/** (e) A full disk, few descriptors, little memory: refused in words or served, and served again afterwards. */
const scarce: Stage = {
  name: "disk full, descriptors and memory short",
  async run(ground, ledger, extent) {
    const count = Math.ceil(extent.requests / 20);
    const disk = smallDisk(ground);
    try {
      const options: ProcessOptions = { node: limitedNode(ground, 400, 256) };
      const config = ground.file({
        audit: { path: disk.at },
        session: { enabled: true, persist: { path: disk.events } },
        limits: { max_connections: 150, max_tunnels: 50, max_upstream_connections: 100 },
      });
      const proxy = await ProxyProcess.start(config, options);
      const mix = await Mix.start(ground, proxy);
      for (let cycle = 0; cycle < extent.cycles; cycle += 1) {
        await mix.run(Math.ceil(count / extent.cycles), 16, ledger, cycle * count);
        // More clients than it has room for: each is served, refused or cut, and nothing of them is left.
        const crowding = Array.from({ length: 400 }, (_, seed) => askBytes(ground, proxy, seed));
        for (const [seed, answer] of (await Promise.all(crowding)).entries()) {
          ledger.answered("one of a crowd", answer, [200, 0, 502, 503], digestOf(bytesOf(seed)));
        }
        mix.close();
        await takeStock(proxy, ledger);
      }
      const outages = await proxy.metric("authbridge_file_outages_total");
      if (outages < 2) ledger.lost(`${outages} of 2 full disks counted`);
      const mostMiB = Math.max(...ledger.samples.map(({ rssMiB }) => rssMiB));
      if (mostMiB > 512) ledger.lost(`${mostMiB.toFixed(0)} MiB resident`);
      await hear(proxy, ledger);
      await end(proxy, ledger);
      return {
        disk: disk.at === "/dev/full" ? "/dev/full" : "tmpfs of 64 KiB",
        outages,
        "MiB at most": mostMiB.toFixed(0),
      };
    } finally {
      disk.leave();
    }
  },
};

/** A node with few descriptors and a small heap. */
function limitedNode(ground: Ground, descriptors: number, heapMiB: number): string {
  const script = ground.path("limited-node");
  const line = `ulimit -n ${descriptors} && exec ${process.execPath} --max-old-space-size=${heapMiB} "$@"`;
  writeFileSync(script, `#!/bin/sh\n${line}\n`, { mode: 0o755 });
  return script;
}

/** (f) The end under load, and starts with files cut at every length. */
const signals: Stage = {
  name: "SIGTERM under load, SIGKILL with files cut",
  async run(ground, ledger, extent) {
    for (let cycle = 0; cycle < extent.cycles; cycle += 1) await terminate(ground, ledger);
    return { terminated: extent.cycles, ...(await cutFiles(ground, ledger, extent)) };
  },
};

/** Who was being served when SIGTERM came is served to the end. */
async function terminate(ground: Ground, ledger: Ledger): Promise<void> {
  const { doomed } = ground.parties;
  const proxy = await ProxyProcess.start(ground.file({ limits: { drain_timeout: "30s" } }));
  doomed.mood = "hung";
  const inFlight = Array.from({ length: 50 }, (_, seed) =>
    askBytes(ground, proxy, seed, false, doomed),
  );
  await eventually(() => doomed.held.length === 50);
  proxy.signal("SIGTERM");
  await eventually(async () => (await proxy.health("/readyz")).status !== 200);
  for (const response of doomed.held.splice(0)) response.end(bytesOf(7));
  doomed.mood = "well";
  for (const answer of await Promise.all(inFlight)) {
    ledger.answered("a request in flight at SIGTERM", answer, [200], digestOf(bytesOf(7)));
  }
  const { code } = await proxy.ended;
  if (code !== 0) ledger.lost(`SIGTERM ended with ${code}`);
  hearLog(proxy, ledger);
  await proxy.close();
}

const limit = { name: "l", unit: "requests", limit: 1_000_000, window: "lifetime" };

/** Starts with state, audit and kill files of which a crash left a part. */
async function cutFiles(ground: Ground, ledger: Ledger, extent: Extent): Promise<Figures> {
  const names = {
    state: ground.path("state.log"),
    audit: ground.path("audit.jsonl"),
    kill: ground.path("kills"),
  };
  const config = ground.file({
    state: { store: "file", path: names.state },
    audit: { path: names.audit },
    kill_switch: { file: names.kill },
    pipeline: { outbound: { plugins: [{ name: "budgets", config: { limits: [limit] } }] } },
  });
  writeFileSync(names.kill, "destination stopped.test # soak\n");
  const first = await ProxyProcess.start(config);
  await inParallel(50, 8, async (seed) => {
    ledger.answered(
      "before the cut",
      await askBytes(ground, first, seed),
      [200],
      digestOf(bytesOf(seed)),
    );
  });
  await first.kill();
  hearLog(first, ledger);
  const whole = Object.fromEntries(Object.values(names).map((path) => [path, readFileSync(path)]));
  let starts = 0;
  let refusedStarts = 0;
  for (const [name, path] of Object.entries(names)) {
    const bytes = whole[path] ?? Buffer.alloc(0);
    for (const length of lengths(bytes.length, extent.cuts)) {
      for (const [other, content] of Object.entries(whole)) writeFileSync(other, content);
      writeFileSync(path, bytes.subarray(0, length));
      starts += 1;
      const proxy = await ProxyProcess.start(config).catch((error: unknown) => String(error));
      if (typeof proxy === "string") {
        refusedStarts += 1;
        ledger.lost(`${name} file cut at ${length} of ${bytes.length}: ${proxy.slice(0, 300)}`);
        continue;
      }
      // A kill file of which something is missing may stop all.
      const due = name === "kill" ? [200, 403] : [200];
      const answer = await askBytes(ground, proxy, length);
      ledger.answered(
        `after a cut of the ${name} file at ${length}`,
        answer,
        due,
        digestOf(bytesOf(length)),
      );
      await hear(proxy, ledger);
      await proxy.close();
    }
  }
  return { "starts with cut files": starts, refused: refusedStarts };
}

/** Every length of a file up to `most` of them, else as many with the same distance. */
function lengths(whole: number, most: number): number[] {
  const step = Math.max(1, Math.floor(whole / most));
  return Array.from({ length: Math.ceil(whole / step) }, (_, at) => whole - 1 - at * step).filter(
    (length) => length >= 0,
  );
}

export const stages: readonly Stage[] = [crowd, mixed, reloads, partiesFail, scarce, signals];
