/** What a stage of a soak is, and what several of them do. */
import { readFileSync } from "node:fs";
import type http from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { eventually } from "../../test/support/eventually.ts";
import { openTunnel, type RawClient } from "../../test/support/http-client.ts";
import type { Settings } from "../../test/support/program.ts";
import { merge, type ProxyProcess } from "../../test/support/proxy.ts";
import { type Extent, type Ground, hearLog } from "./ground.ts";
import type { Answer, Ledger } from "./ledger.ts";
import { ask, inParallel } from "./mix.ts";
import type { Pace } from "./pace.ts";
import { bytesOf, digestOf, type Party } from "./parties.ts";

export type Figures = Readonly<Record<string, number | string>>;

/** What a stage is given. */
export interface Course {
  readonly ground: Ground;
  readonly ledger: Ledger;
  readonly extent: Extent;
  readonly pace: Pace;
}

export interface Stage {
  readonly name: string;
  /** Its part of the time of a run that has a length. */
  readonly weight: number;
  run(course: Course): Promise<Figures>;
}

/** Clients at once. */
export const width = 24;

export function residentMiB(proxy: ProxyProcess): number {
  const status = readFileSync(`/proc/${proxy.pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1_024;
}

export async function openTunnels(
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

export async function echoOn(
  tunnel: RawClient | undefined,
  seed: number,
  ledger: Ledger,
): Promise<void> {
  const due = bytesOf(seed).subarray(0, 512);
  const back = await tunnel
    ?.send(due)
    .reader.exactly(due.length)
    .catch(() => undefined);
  const answer = back === undefined ? { status: 0 } : { status: 200, digest: digestOf(back) };
  ledger.answered("a tunnel that waited", answer, [200], digestOf(due));
}

export function askBytes(
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

/** Who was being served when SIGTERM came is served to the end. */
export async function terminate(
  ground: Ground,
  ledger: Ledger,
  over: Settings = {},
): Promise<void> {
  const { doomed } = ground.parties;
  const proxy = await ground.start(ground.file({ ...over, limits: { drain_timeout: "120s" } }));
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

/** The file with further plugins of one direction behind those that it has. */
export function beside(
  file: Settings,
  direction: "inbound" | "outbound",
  more: readonly Settings[],
): Settings {
  const pipeline = file["pipeline"] as Readonly<Record<string, { plugins: readonly Settings[] }>>;
  const plugins = [...(pipeline[direction]?.plugins ?? []), ...more];
  return merge(file, { pipeline: { [direction]: { plugins } } });
}

/** Asks until it is served as ever, or books `what` as lost. */
export async function recovers(
  what: string,
  ledger: Ledger,
  once: () => Promise<Answer>,
): Promise<void> {
  const isServed = async (): Promise<boolean> => {
    const { status } = await once();
    if (status >= 400) ledger.refusalsSeen += 1;
    if (status !== 200) await delay(100);
    return status === 200;
  };
  await eventually(isServed, 120_000).catch(() => ledger.lost(what));
}

/** A request to the agent with this token. */
export function askAgent(proxy: ProxyProcess, token: string, seed: number, leaveMs?: number) {
  const headers = { Authorization: `Bearer ${token}` };
  const options = { port: proxy.reverse.port, path: `/bytes/${seed}`, agent: false, headers };
  return ask(options, undefined, leaveMs);
}
