import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { usableCores } from "../../../src/threads/cores.ts";

const roots: string[] = [];

function rootWith(files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), "authbridge-cores-"));
  roots.push(root);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true });
});

const v2 = "0::/pod/app\n";
const v1 = "4:memory:/pod\n3:cpu,cpuacct:/pod/app\n0::/\n";

test.each([
  ["no cgroup at all", {}, 8],
  ["no quota", { "proc/self/cgroup": v2, "sys/fs/cgroup/pod/app/cpu.max": "max 100000\n" }, 8],
  [
    "a quota of version 2",
    { "proc/self/cgroup": v2, "sys/fs/cgroup/pod/app/cpu.max": "200000 100000\n" },
    2,
  ],
  [
    "a part of a core",
    { "proc/self/cgroup": v2, "sys/fs/cgroup/pod/app/cpu.max": "150000 100000\n" },
    2,
  ],
  [
    "less than one core",
    { "proc/self/cgroup": v2, "sys/fs/cgroup/pod/app/cpu.max": "20000 100000\n" },
    1,
  ],
  [
    "a quota of a group above",
    {
      "proc/self/cgroup": v2,
      "sys/fs/cgroup/pod/cpu.max": "300000 100000\n",
      "sys/fs/cgroup/pod/app/cpu.max": "max 100000\n",
    },
    3,
  ],
  [
    "a group that is the root of its namespace",
    { "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n" },
    4,
  ],
  [
    "a quota of version 1",
    {
      "proc/self/cgroup": v1,
      "sys/fs/cgroup/cpu,cpuacct/pod/app/cpu.cfs_quota_us": "250000\n",
      "sys/fs/cgroup/cpu,cpuacct/pod/app/cpu.cfs_period_us": "100000\n",
    },
    3,
  ],
  [
    "version 1 without a quota, mounted under another name",
    {
      "proc/self/cgroup": v1,
      "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    },
    8,
  ],
  [
    "more than the machine has",
    { "proc/self/cgroup": v2, "sys/fs/cgroup/pod/app/cpu.max": "6400000 100000\n" },
    8,
  ],
] as const)("%s", (_what, files, cores) => {
  expect(usableCores({ root: rootWith(files), available: 8 })).toBe(cores);
});
