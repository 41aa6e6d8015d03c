/**
 * Writes the bill of materials of what is shipped: `node scripts/bill-of-materials.ts FILE` (CycloneDX, as npm makes it).
 *
 * `npm sbom --omit=dev` leaves out what packages for development use as well, such as zod. So everything is asked for, and
 * what the lockfile marks as only for development is taken out here.
 */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");

/** A package of a lockfile of version 3. */
export interface Locked {
  readonly version: string;
  readonly integrity?: string;
  readonly resolved?: string;
  readonly license?: string;
  readonly dev?: boolean;
  readonly devOptional?: boolean;
  readonly hasInstallScript?: boolean;
}

interface Bill {
  readonly metadata: { readonly component: { readonly "bom-ref": string } };
  readonly components: readonly { readonly "bom-ref": string }[];
  readonly dependencies: readonly {
    readonly ref: string;
    readonly dependsOn?: readonly string[];
  }[];
}

/** The packages of package-lock.json by their path; the project itself has the path "". */
export function lockedPackages(): Readonly<Record<string, Locked>> {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, Locked>;
  };
  return lock.packages;
}

/** The name of a package, from its path in node_modules. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length);
}

/** What the lockfile does not mark as only for development, by path. */
export function shippedPackages(packages: Readonly<Record<string, Locked>>): [string, Locked][] {
  return Object.entries(packages).filter(
    ([path, { dev, devOptional }]) => path !== "" && dev !== true && devOptional !== true,
  );
}

/** The bill of what is shipped, in CycloneDX. */
export function billOfMaterials(packages: Readonly<Record<string, Locked>>): Bill {
  const asked = ["sbom", "--sbom-format=cyclonedx", "--package-lock-only"];
  const output = execFileSync("npm", asked, {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
  });
  const bill = JSON.parse(output) as Bill;
  const shipped = new Set(
    shippedPackages(packages).map(([path, { version }]) => `${nameOf(path)}@${version}`),
  );
  const kept = new Set([...shipped, bill.metadata.component["bom-ref"]]);
  return {
    ...bill,
    components: bill.components.filter((component) => shipped.has(component["bom-ref"])),
    dependencies: bill.dependencies
      .filter(({ ref }) => kept.has(ref))
      .map((row) => ({
        ...row,
        dependsOn: (row.dependsOn ?? []).filter((ref) => shipped.has(ref)),
      })),
  };
}

if (import.meta.main) {
  const [file] = process.argv.slice(2);
  if (file === undefined) throw new Error("node scripts/bill-of-materials.ts FILE");
  writeFileSync(file, `${JSON.stringify(billOfMaterials(lockedPackages()), undefined, 2)}\n`);
}
