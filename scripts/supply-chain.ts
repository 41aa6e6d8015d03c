/**
 * What the packages of production are, and whether each may be there: `node scripts/supply-chain.ts`.
 *
 * Reads package.json, the lockfile and docs/dependencies.md, no registry: every package has an integrity hash, no host that
 * it was downloaded from and a licence of the list; runs no script at its installation unless package.json says so; and each
 * that the project names itself has its row, with the version that is installed. The bill of materials names each of them.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  billOfMaterials,
  type Locked,
  lockedPackages,
  nameOf,
  shippedPackages,
} from "./bill-of-materials.ts";

const root = join(import.meta.dirname, "..");

interface Manifest {
  readonly dependencies: Readonly<Record<string, string>>;
  readonly optionalDependencies: Readonly<Record<string, string>>;
  readonly allowScripts: Readonly<Record<string, boolean>>;
}

/** Licences, as SPDX expressions, that may be redistributed under this project's own. */
const licences = new Set([
  "MIT",
  "ISC",
  "Apache-2.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "0BSD",
  "(BSD-3-Clause OR GPL-2.0)",
]);

/** What is wrong with one package of the lockfile, in words; nothing where nothing is. */
function faultsOf(
  path: string,
  locked: Locked,
  allowScripts: Readonly<Record<string, boolean>>,
): string[] {
  const name = nameOf(path);
  const faults: string[] = [];
  if (!(locked.integrity ?? "").startsWith("sha512-"))
    faults.push(`${path}: no sha512 integrity in the lockfile`);
  if (locked.resolved !== undefined)
    faults.push(`${path}: the lockfile names where it was downloaded from`);
  if (locked.hasInstallScript === true && !(name in allowScripts))
    faults.push(
      `${path}: runs a script when installed, and allowScripts of package.json does not say whether it may`,
    );
  if (locked.dev === true || locked.devOptional === true) return faults;
  if (!licences.has(locked.license ?? ""))
    faults.push(`${path}: licence ${locked.license ?? "not named"} is not on the list`);
  return faults;
}

/** The rows of the first table of docs/dependencies.md: name and version. */
export function rowsOf(document: string): Map<string, string> {
  return new Map(
    [...document.matchAll(/^\| `([^`]+)` +\| (\d[^ |]*) +\|/gm)].map(
      ([, name = "", version = ""]) => [name, version],
    ),
  );
}

/** Everything that is wrong with the packages, in words. */
export function supplyChainFaults(
  manifest: Manifest,
  packages: Readonly<Record<string, Locked>>,
  rows: ReadonlyMap<string, string>,
): string[] {
  const named = Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies });
  return [
    ...Object.entries(packages).flatMap(([path, locked]) =>
      path === "" ? [] : faultsOf(path, locked, manifest.allowScripts),
    ),
    ...named.flatMap((name) => {
      const version = packages[`node_modules/${name}`]?.version;
      const row = rows.get(name);
      if (row === version && row !== undefined) return [];
      return [
        `docs/dependencies.md: ${name} is ${String(version)} in the lockfile and ${row ?? "without a row"} there`,
      ];
    }),
    ...[...rows.keys()]
      .filter((name) => !named.includes(name))
      .map((name) => `docs/dependencies.md: ${name} has a row and is no dependency`),
  ];
}

function main(): void {
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as Manifest;
  const packages = lockedPackages();
  const faults = supplyChainFaults(
    manifest,
    packages,
    rowsOf(readFileSync(join(root, "docs/dependencies.md"), "utf8")),
  );
  const shipped = shippedPackages(packages);
  const counts = new Map<string, number>();
  for (const [, { license = "not named" }] of shipped)
    counts.set(license, (counts.get(license) ?? 0) + 1);
  const said = [...counts].map(([name, count]) => `${count} ${name}`).join(", ");
  console.log(`${shipped.length} packages of production: ${said}`);
  const named = new Set(
    billOfMaterials(packages).components.map((component) => component["bom-ref"]),
  );
  for (const [path, { version }] of shipped)
    if (!named.has(`${nameOf(path)}@${version}`))
      faults.push(`${path}: not in the bill of materials`);
  for (const fault of faults) console.error(fault);
  process.exitCode = faults.length === 0 ? 0 : 1;
}

if (import.meta.main) main();
