/**
 * Where the processor time of one case goes: `node bench/profile.ts CASE [--seconds S] [--top N] [--keep FILE]`.
 *
 * Starts this program from its sources, so that every function has its file, warms it up, and samples it under the load of
 * the case. Prints shares of the time that it was busy, by room of src/ and package, and by function.
 */
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { CASES, type LoadCase } from "./cases.ts";
import { Child } from "./child.ts";
import { fromSources } from "./contestants.ts";
import type { LoadResult } from "./load/command.ts";
import { Stage } from "./stage.ts";

const loads = CASES.filter((test): test is LoadCase => test.kind === "load");
const usage = `node bench/profile.ts CASE [--seconds S] [--top N] [--keep FILE]
cases: ${loads.map(({ name }) => name).join(" ")}
`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: "string", default: "5" },
    top: { type: "string", default: "40" },
    keep: { type: "string" },
  },
});
const test = loads.find(({ name }) => name === positionals[0]);
const seconds = Number(values.seconds);
const top = Number(values.top);
if (test === undefined || !(seconds > 0) || !(top > 0)) {
  process.stderr.write(usage);
  process.exit(2);
}

interface Frame {
  readonly functionName: string;
  readonly url: string;
  readonly lineNumber: number;
  readonly columnNumber: number;
}
interface Profile {
  readonly nodes: readonly { readonly id: number; readonly callFrame: Frame }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

/** Samples one run; the load begins before the profile can, so the warm-up is in it and is cut off by time. */
async function record(chosen: LoadCase, folder: string): Promise<Profile> {
  const stage = await Stage.open();
  const load = new Child("bench", join(stage.directory, "load.log"), process.execPath, [
    join(import.meta.dirname, "load.ts"),
  ]);
  try {
    await load.ports();
    const proxy = await fromSources([
      "--cpu-prof",
      "--cpu-prof-interval=200",
      `--cpu-prof-dir=${folder}`,
    ]).start(stage, chosen.role);
    const ask = async (length: number): Promise<LoadResult> => {
      const result = await load.ask<LoadResult & { readonly error?: string }>(
        chosen.command(stage, proxy, length),
        length * 1_000 + 60_000,
      );
      if (result.error !== undefined || result.failed > 0)
        throw new Error(result.error ?? result.firstFailure);
      return result;
    };
    await ask(3);
    const before = proxy.child.usage();
    const { total } = await ask(seconds);
    const { cpuMs } = proxy.child.usage();
    process.stdout.write(
      `${chosen.name}: ${total} operations in ${seconds} s, ${(((cpuMs - before.cpuMs) * 1_000) / total).toFixed(1)} µs each with the sampling\n\n`,
    );
    await proxy.stop();
  } finally {
    await load.stop();
    await stage.close();
  }
  const [file = ""] = readdirSync(folder);
  if (values.keep !== undefined) copyFileSync(join(folder, file), values.keep);
  return JSON.parse(readFileSync(join(folder, file), "utf8")) as Profile;
}

/** A room of src/, a package, or a part of Node. */
function placeOf(frame: Frame): string {
  if (frame.functionName === "(garbage collector)") return "garbage collector";
  const source = frame.url;
  const room = /\/src\/(.+)\/[^/]+\.ts$/.exec(source)?.[1];
  if (room !== undefined) return `src/${room}`;
  const name = /^.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(source)?.[1];
  if (name !== undefined) return name;
  if (source.startsWith("node:"))
    return source.replace(/^node:(internal\/)?/, "node:").split("/")[0] ?? "";
  return source === "" ? "V8 and system calls" : source;
}

function print(title: string, times: ReadonlyMap<string, number>, most: number): void {
  const all = [...times.values()].reduce((sum, one) => sum + one, 0);
  const rows = [...times].sort((one, other) => other[1] - one[1]).slice(0, most);
  process.stdout.write(`${title}\n`);
  for (const [name, time] of rows)
    process.stdout.write(`${((time / all) * 100).toFixed(1).padStart(6)} %  ${name}\n`);
  process.stdout.write("\n");
}

const folder = mkdtempSync(join(tmpdir(), "authbridge-profile-"));
try {
  const { nodes, samples, timeDeltas } = await record(test, folder);
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const end = timeDeltas.reduce((sum, one) => sum + one, 0);
  const places = new Map<string, number>();
  const functions = new Map<string, number>();
  let at = 0;
  for (const [index, id] of samples.entries()) {
    const time = timeDeltas[index] ?? 0;
    at += time;
    const frame = frames.get(id);
    // The last moments are the end of the process; before the last load it was started and warmed up.
    if (frame === undefined || at < end - (seconds + 1) * 1e6) continue;
    if (frame.functionName === "(idle)" || frame.functionName === "(root)") continue;
    const place = placeOf(frame);
    places.set(place, (places.get(place) ?? 0) + time);
    const name = `${frame.functionName === "" ? "(anonymous)" : frame.functionName}  ${place}`;
    functions.set(name, (functions.get(name) ?? 0) + time);
  }
  print("by room, package and part of Node", places, 25);
  print("by function", functions, top);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
