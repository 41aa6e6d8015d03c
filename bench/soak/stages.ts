/** The stages of a soak. Each has a proxy of its own, does what its name says, and books what came of it. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import http from "node:http";
import { join } from "node:path";
import { eventually } from "../../test/support/eventually.ts";
import { merge, type ProxyProcess } from "../../test/support/proxy.ts";
import type { ProcessOptions, Settings } from "../../test/support/program.ts";
import { clockSteps } from "./clock.ts";
import { end, type Ground, hear, hearLog, takeStock } from "./ground.ts";
import { ask, inParallel, Mix } from "./mix.ts";
import { namesFail } from "./names.ts";
import { bytesOf, digestOf, type Mood, type Party } from "./parties.ts";
import { askBytes, type Course, echoOn, type Figures, openTunnels, residentMiB } from "./stage.ts";
import { type Stage, terminate, width } from "./stage.ts";
import { threads } from "./threads.ts";

/** Open files that this process may have, some kept for its own use. */
function spareDescriptors(): number {
  const limits = readFileSync("/proc/self/limits", "utf8");
  return Number(/Max open files\s+(\d+)/.exec(limits)?.[1] ?? 1_024) - 2_000;
}

/** (a) Tunnels that stay open and clients that wait, while others are served. */
const crowd: Stage = {
  name: "open tunnels, waiting clients",
  weight: 10,
  async run({ ground, ledger, extent, pace }) {
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
    const proxy = await ground.start(config);
    const mix = await Mix.start(ground, proxy);
    const share = Math.ceil(extent.requests / 20 / extent.cycles);
    let mostMiB = 0;
    for (const _ of pace.cycles()) {
      const tunnels = await openTunnels(ground, proxy, tunnelCount, ledger);
      const agent = new http.Agent({ keepAlive: true, maxSockets: 200_000 });
      const waiting = Array.from({ length: idleCount }, (_, seed) =>
        askBytes(ground, proxy, seed, agent),
      );
      for (const [seed, answer] of (await Promise.all(waiting)).entries()) {
        ledger.answered("a client that then waits", answer, [200], digestOf(bytesOf(seed)));
      }
      await mix.run(pace, share, 200, ledger);
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

/** (b) Every kind of request, with digests. */
const mixed: Stage = {
  name: "mixed requests",
  weight: 14,
  async run({ ground, ledger, extent, pace }) {
    const proxy = await ground.start(ground.file());
    const mix = await Mix.start(ground, proxy);
    const share = Math.ceil(extent.requests / extent.cycles);
    const startedAt = performance.now();
    for (const _ of pace.cycles()) {
      await mix.run(pace, share, width, ledger);
      mix.close();
      await takeStock(proxy, ledger);
    }
    const rate = (ledger.asked * 1_000) / (performance.now() - startedAt);
    await hear(proxy, ledger);
    await end(proxy, ledger);
    return { kinds: mix.counts.size, "per s": rate.toFixed(0) };
  },
};

/** (c) The file changes under traffic, every third time to one that is refused. */
const reloads: Stage = {
  name: "reloads, valid and invalid",
  weight: 7,
  async run({ ground, ledger, extent, pace }) {
    const proxy = await ground.start(ground.file());
    const mix = await Mix.start(ground, proxy);
    const perCycle = Math.ceil(extent.reloads / extent.cycles);
    let refused = 0;
    let number = 0;
    for (const _ of pace.cycles()) {
      const during = new AbortController();
      const traffic = mix.until(during.signal, width, ledger);
      for (let at = 0; !pace.isOver(at, perCycle, 3); at += 1) {
        number += 1;
        const next = ground.file({ limits: { drain_timeout: `${60_000 + number}ms` } });
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
    return { reloads: number, refused };
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
  // Each is remembered until it expires: new ones all the time would look like a leak.
  const tokens = Array.from({ length: 16 }, (_, at) => parties.token(`needy-${at}`));
  const inbound = async (number: number, leaveMs?: number) =>
    ask(
      {
        port: proxy.reverse.port,
        path: `/bytes/${number}`,
        agent: false,
        headers: { Authorization: `Bearer ${await tokens[number % tokens.length]}` },
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
  weight: 8,
  async run({ ground, ledger, pace }) {
    const judged = {
      name: "opa",
      config: {
        server_url: `http://127.0.0.1:${ground.parties.opa.port}`,
        decision_timeout: "30s",
        decision_log: { enabled: false },
      },
    };
    const base = ground.file();
    const { inbound } = base["pipeline"] as {
      readonly inbound: { readonly plugins: readonly Settings[] };
    };
    const plugins = [...inbound.plugins, judged];
    const proxy = await ground.start(merge(base, { pipeline: { inbound: { plugins } } }));
    let failed = 0;
    let number = 0;
    for (const _ of pace.cycles()) {
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
    return { failures: moods.length * 5 * pace.done, "needed the party": failed };
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
  weight: 5,
  async run({ ground, ledger, extent, pace }) {
    const count = Math.ceil(extent.requests / 20);
    const disk = smallDisk(ground);
    const memory = memoryGroup(mostMemoryMiB);
    try {
      const options: ProcessOptions = { node: limitedNode(ground, 400, memory?.at) };
      const config = ground.file({
        audit: { path: disk.at },
        session: { enabled: true, persist: { path: disk.events } },
        limits: { max_connections: 150, max_tunnels: 50, max_upstream_connections: 100 },
      });
      const proxy = await ground.start(config, options);
      const mix = await Mix.start(ground, proxy);
      for (const _ of pace.cycles()) {
        await mix.run(pace, Math.ceil(count / extent.cycles), 16, ledger);
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
      if (mostMiB > mostMemoryMiB) ledger.lost(`${mostMiB.toFixed(0)} MiB resident`);
      await hear(proxy, ledger);
      await end(proxy, ledger);
      return {
        disk: disk.at === "/dev/full" ? "/dev/full" : "tmpfs of 64 KiB",
        outages,
        "MiB at most": mostMiB.toFixed(0),
        "memory limit":
          memory === undefined
            ? "a heap of 256 MiB (no cgroup)"
            : `cgroup of ${mostMemoryMiB} MiB, ${memory.peakMiB().toFixed(0)} used at most`,
      };
    } finally {
      disk.leave();
      memory?.leave();
    }
  },
};

const mostMemoryMiB = 512;

/**
 * A control group whose processes have so much memory together, where one may be made (cgroup v2 with the controller delegated,
 * or v1).
 */
function memoryGroup(
  mebibytes: number,
): { readonly at: string; peakMiB(): number; leave(): void } | undefined {
  const groups = readFileSync("/proc/self/cgroup", "utf8");
  const bytes = String(mebibytes * 1_048_576);
  const places = [
    [/^0::(.*)$/m, "", "memory.max", "memory.peak"],
    [/^0::(.*)$/m, "/unified", "memory.max", "memory.peak"],
    [/^\d+:memory:(.*)$/m, "/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"],
  ] as const;
  for (const [pattern, mount, limit, peak] of places) {
    const own = pattern.exec(groups)?.[1];
    if (own === undefined) continue;
    const at = join("/sys/fs/cgroup", mount, own, `soak-${process.pid}`);
    try {
      mkdirSync(at);
    } catch {
      continue;
    }
    const leave = (): void => {
      try {
        rmdirSync(at);
      } catch {
        // A process of it has not quite ended: an empty group costs nothing.
      }
    };
    try {
      // Where no group can be made, this is a folder like any other.
      readFileSync(join(at, peak));
      writeFileSync(join(at, limit), bytes);
      const peakMiB = (): number => Number(readFileSync(join(at, peak), "utf8")) / 1_048_576;
      return { at, peakMiB, leave };
    } catch {
      leave();
    }
  }
  return undefined;
}

/** A node with few descriptors, and with the memory of a group or else a small heap. */
function limitedNode(ground: Ground, descriptors: number, group: string | undefined): string {
  const script = ground.path("limited-node");
  const joined = group === undefined ? "" : `echo $$ > ${group}/cgroup.procs && `;
  const heap = group === undefined ? "--max-old-space-size=256 " : "";
  const line = `ulimit -n ${descriptors} && ${joined}exec ${process.execPath} ${heap}"$@"`;
  writeFileSync(script, `#!/bin/sh\n${line}\n`, { mode: 0o755 });
  return script;
}

/** (f) The end under load, and starts with files cut at every length. */
const signals: Stage = {
  name: "SIGTERM under load, SIGKILL with files cut",
  weight: 5,
  async run({ ground, ledger, extent, pace }) {
    for (let cycle = 0; cycle < extent.cycles; cycle += 1) await terminate(ground, ledger);
    return { terminated: extent.cycles, ...(await cutFiles({ ground, ledger, extent, pace })) };
  },
};

const limit = { name: "l", unit: "requests", limit: 1_000_000, window: "lifetime" };

/** Starts with state, audit and kill files of which a crash left a part. */
async function cutFiles({ ground, ledger, extent, pace }: Course): Promise<Figures> {
  const names = {
    kill: ground.path("kills"),
    state: ground.path("state.log"),
    audit: ground.path("audit.jsonl"),
  };
  const config = ground.file({
    state: { store: "file", path: names.state },
    audit: { path: names.audit },
    kill_switch: { file: names.kill },
    pipeline: { outbound: { plugins: [{ name: "budgets", config: { limits: [limit] } }] } },
  });
  writeFileSync(names.kill, "destination stopped.test # soak\n");
  const first = await ground.start(config);
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
  const whole = Object.values(names).map((path) => [path, readFileSync(path)] as const);
  const cuts = Object.entries(names).map(([name, path]) =>
    lengths(readFileSync(path).length, extent.cuts).map((length) => ({ name, path, length })),
  );
  const starts: Record<string, number> = {};
  let refused = 0;
  const longest = Math.max(...cuts.map(({ length }) => length));
  // By turns, so that a run that has a length gets to each of the files.
  const inTurn = Array.from({ length: longest }, (_, at) => cuts.flatMap((file) => file[at] ?? []));
  for (const [number, { name, path, length }] of inTurn.flat().entries()) {
    if (pace.isAllOver && number >= 3 * 8) break;
    for (const [other, content] of whole)
      writeFileSync(other, other === path ? content.subarray(0, length) : content);
    starts[name] = (starts[name] ?? 0) + 1;
    const proxy = await ground.start(config).catch((error: unknown) => String(error));
    if (typeof proxy === "string") {
      refused += 1;
      ledger.lost(`${name} file cut at ${length}: ${proxy.slice(0, 300)}`);
      continue;
    }
    // A kill file of which something is missing may stop all.
    const due = name === "kill" ? [200, 403] : [200];
    const answer = await askBytes(ground, proxy, length);
    const what = `after a cut of the ${name} file at ${length}`;
    ledger.answered(what, answer, due, digestOf(bytesOf(length)));
    await hear(proxy, ledger);
    await proxy.close();
  }
  const told = Object.entries(starts).map(([name, count]) => [`starts, ${name} cut`, count]);
  return { ...(Object.fromEntries(told) as Figures), refused };
}

/** Every length of a file up to `most` of them, else as many with the same distance; neighbours are far apart. */
function lengths(whole: number, most: number): number[] {
  const step = Math.max(1, Math.floor(whole / most));
  const all = Array.from({ length: Math.ceil(whole / step) }, (_, at) => whole - 1 - at * step);
  const known = all.filter((length) => length >= 0);
  const apart = [8, 4, 2, 1];
  const seen = new Set(apart.flatMap((every) => known.filter((_, at) => at % every === 0)));
  return [...seen];
}

/** Those that take the time that others leave are the last. */
export const stages: readonly Stage[] = [
  crowd,
  partiesFail,
  scarce,
  clockSteps,
  namesFail,
  threads,
  signals,
  reloads,
  mixed,
];
