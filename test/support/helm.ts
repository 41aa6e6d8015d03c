/** The chart, rendered by helm. */
import { spawnSync } from "node:child_process";
import { join, resolve } from "node:path";
import { isOnPath, type Manifest, manifestsOf } from "./manifests.ts";

export const chart = resolve("deploy/helm/authbridge-proxy");
export const hasHelm = isOnPath("helm", "version");

/** What `helm template` says of a chart; the status is that of the process. */
export function helm(
  path: string,
  ...args: string[]
): { status: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync("helm", ["template", "t", path, ...args], {
    encoding: "utf8",
    maxBuffer: 1e8,
  });
  return { status, out: stdout, err: stderr };
}

/** The objects of the chart; throws helm's words where it refuses. */
export function render(...args: string[]): Manifest[] {
  const { status, out, err } = helm(chart, ...args);
  if (status !== 0) throw new Error(err);
  return manifestsOf(out);
}

export const withSets = (...sets: string[]): Manifest[] =>
  render(...sets.flatMap((set) => ["--set", set]));

/** The objects of one of the chart's examples. */
export const example = (name: string, ...more: string[]): Manifest[] =>
  render("-f", join(chart, "ci", `${name}-values.yaml`), ...more);
