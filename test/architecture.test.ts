/** The layers of docs/architecture.md hold, and the check that says so can fail. */
import { globSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { layerOf, layers, layerViolations } from "./support/layers.ts";

const root = new URL("../src/", import.meta.url).pathname;
const files = globSync("**/*.ts", { cwd: root });

test("every source file imports downward only", () => {
  const violations = files.flatMap((file) =>
    layerViolations(file, readFileSync(root + file, "utf8")),
  );
  expect(files.length).toBeGreaterThan(50);
  expect(violations).toEqual([]);
});

/** A flat room that holds more is divided by its nouns (docs/adr/0021-rooms.md). */
const mostFilesInARoom = 26;

test("no room is crowded", () => {
  const counts = Map.groupBy(
    files.filter((file) => !file.startsWith("admin/console/")),
    (file) => file.slice(0, file.lastIndexOf("/") + 1),
  );
  const crowded = [...counts].filter(([, members]) => members.length > mostFilesInARoom);
  expect(crowded.map(([room]) => room)).toEqual([]);
});

/** Who reads files by itself, and why it may: nothing of these is a pipe that a person named. */
const ownReaders: Readonly<Record<string, string>> = {
  "admin/console.ts": "its own pages",
  "cli/init.ts": "the starters of the package",
  "cli/run/run.ts": "what it has just written",
  "cli/run/standstill.ts": "/proc",
  "cli/stack-trace.ts": "maps beside the bundle",
  "cli/version.ts": "package.json",
  "net/kernel/process-tree.ts": "/proc",
  "net/system-names.ts": "/etc",
  "opa/bundle-file.ts": "after a look at what it is",
  "opa/compiler.ts": "what the compiler has written, and /proc",
  "session/journal.ts": "after a look at what it is",
  "state/file-store.ts": "from a handle that waits for no writer",
  "telemetry/process-metrics.ts": "/proc",
  "threads/cores.ts": "/proc and /sys",
  "upstream/own-listeners.ts": "/proc",
};

test("files that people name are read by files/, which waits for no pipe and has a limit", () => {
  const reading = /import[^;]*\b(?:readFile|readFileSync|createReadStream)\b[^;]*from "node:fs/;
  const readers = files.filter(
    (file) => !file.startsWith("files/") && reading.test(readFileSync(root + file, "utf8")),
  );
  expect(readers.sort()).toEqual(Object.keys(ownReaders));
});

test("every layer of the table has files", () => {
  const present = new Set(files.map(layerOf));
  const empty = Object.keys(layers).filter((layer) => !present.has(layer));
  expect(empty).toEqual([]);
});

// The canary: a checker that silently checks nothing is worse than none.
test.each([
  ["a plugin that dials", "plugins/canary.ts", 'import net from "node:net";'],
  [
    "a plugin that names the dialler",
    "plugins/canary.ts",
    'import { DirectUpstream } from "../upstream/upstream.ts";',
  ],
  [
    "a plugin that names another plugin",
    "plugins/ibac/canary.ts",
    'import { opa } from "../opa/plugin.ts";',
  ],
  [
    "an exchange that names a tunnel",
    "proxy/exchange/canary.ts",
    'import type { TunnelRequest } from "../tunnel/request.ts";',
  ],
  ["assembly that names a command", "app/canary.ts", 'import { check } from "../cli/check.ts";'],
  ["rules that name their reader", "policy/canary.ts", 'import { Node } from "./file/node.ts";'],
  [
    "a room below that climbs into one above",
    "net/canary.ts",
    'import { lookUp } from "./kernel/peer-process.ts";',
  ],
  [
    "a plugin that names the dialler's type",
    "plugins/canary.ts",
    'import type { Upstream } from "../upstream/upstream.ts";',
  ],
  [
    "a late import of the dialler",
    "plugins/canary.ts",
    'const x = await import("../upstream/upstream.ts");',
  ],
  ["a package of another layer", "net/canary.ts", 'import { Pool } from "undici";'],
  [
    "configuration below app/",
    "proxy/flow/canary.ts",
    'import type { Config } from "../../config/presets.ts";',
  ],
  [
    "an operator dial from a journey",
    "proxy/flow/canary.ts",
    'export { App } from "../../app/app.ts";',
  ],
  [
    "an import over several lines",
    "session/canary.ts",
    'import {\n  a,\n  b,\n} from "../proxy/exchange/exchange.ts";',
  ],
  [
    "an import below a comment and another import",
    "net/canary.ts",
    '/** What it is. */\nimport { readFileSync } from "node:fs";\nimport { App } from "../app/app.ts";',
  ],
  ["a path that climbs", "net/canary.ts", 'import { x } from "../../bench/run.ts";'],
])("refuses %s", (_name, path, source) => {
  expect(layerViolations(path, source)).toHaveLength(1);
});

test("connections are reset in one place, which knows when they cannot be", () => {
  const users = files.filter((file) =>
    readFileSync(root + file, "utf8").includes(".resetAndDestroy("),
  );
  expect(users).toEqual(["net/cut.ts"]);
});

test("journeys and listeners cannot reach the operator's client", () => {
  const users = files
    .filter((file) => /^(proxy|listener|plugins)\//.test(file))
    .filter((file) => readFileSync(root + file, "utf8").includes("operator-client"));
  expect(users).toEqual([]);
});
