/** How many cores the process may use: those of the machine, or the quota of its cgroup where that is less. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";

/** Where to look; tests have their own. */
export interface CoreSources {
  /** In front of /proc and /sys. */
  readonly root?: string;
  /** What the scheduler lets this process run on. */
  readonly available?: number;
}

/** A quota of part of a core counts as one: 1.5 are 2, as Go has it. */
export function usableCores({
  root = "/",
  available = availableParallelism(),
}: CoreSources = {}): number {
  const quotas = groupsOf(root).flatMap(({ kind, path }) =>
    // The quota of any group above applies as well.
    upwards(path).map((group) =>
      kind === "v2" ? quota2(root, group) : quota1(root, group, kind.folder),
    ),
  );
  const quota = Math.min(...quotas.map((one) => one ?? Number.POSITIVE_INFINITY));
  return Math.max(1, Math.min(available, Math.ceil(quota)));
}

interface Group {
  readonly kind: "v2" | { readonly folder: string };
  readonly path: string;
}

/** The lines of proc(5) /proc/self/cgroup: hierarchy, controllers, path. */
function groupsOf(root: string): Group[] {
  const lines = (read(root, "proc/self/cgroup") ?? "").split("\n");
  return lines.flatMap((line): Group[] => {
    const [hierarchy = "", controllers = "", ...rest] = line.split(":");
    const path = rest.join(":");
    if (hierarchy === "0" && controllers === "") return [{ kind: "v2", path }];
    if (!controllers.split(",").includes("cpu")) return [];
    return [{ kind: { folder: controllers }, path }];
  });
}

/** The group and those above it. In a container whose groups are not in a namespace only the root is to be seen. */
function upwards(path: string): string[] {
  const parts = path.split("/").filter((part) => part !== "" && part !== "..");
  return [...parts.keys(), parts.length].map((count) => parts.slice(0, count).join("/"));
}

/** cpu.max: quota and period in microseconds. */
function quota2(root: string, group: string): number | undefined {
  const text = read(root, join("sys/fs/cgroup", group, "cpu.max"));
  const [quota = "", period = ""] = (text ?? "").trim().split(/\s+/);
  return ratio(quota, period);
}

function quota1(root: string, group: string, folder: string): number | undefined {
  for (const name of new Set([folder, "cpu", "cpu,cpuacct"])) {
    const place = join("sys/fs/cgroup", name, group);
    const quota = read(root, join(place, "cpu.cfs_quota_us"));
    const period = read(root, join(place, "cpu.cfs_period_us"));
    if (quota !== undefined && period !== undefined) return ratio(quota.trim(), period.trim());
  }
  return undefined;
}

/** "max" and -1 are no quota. */
function ratio(quota: string, period: string): number | undefined {
  const cores = Number(quota) / Number(period);
  return Number.isFinite(cores) && cores > 0 ? cores : undefined;
}

function read(root: string, path: string): string | undefined {
  try {
    return readFileSync(join(root, path), "utf8");
  } catch {
    return undefined;
  }
}
