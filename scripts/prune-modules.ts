/**
 * Takes out of installed packages what no program loads: `node scripts/prune-modules.ts DIRECTORY…`.
 *
 * Packages that are in the bundle stay behind, and of the others types, sources, source maps and documents; licences go along.
 * The image's build runs it.
 */
import { globSync, rmSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";

/** Whether a file, by its path with slashes, is only for people and compilers. */
export function isDeadWeight(path: string): boolean {
  const name = path.slice(path.lastIndexOf("/") + 1);
  if (/^(?:licen[cs]e|notice|copying)/i.test(name)) return false;
  // Directories of a package's root only: what lies deeper may be loaded (yaml has a dist/doc).
  return (
    /\.(?:md|markdown|ts|mts|cts|flow|tgz|yml)$/i.test(name) ||
    // The program's own maps name the lines of a stack trace.
    (name.endsWith(".map") && /(?:^|\/)node_modules\//.test(path)) ||
    /(?:^|\/)node_modules\/(?:@[^/]+\/)?[^/]+\/(?:docs?|tests?|__tests__|examples?|bench(?:mark)?s?|\.github)\//.test(
      path,
    )
  );
}

/** Whether a file is of a package whose code is in dist/: neither native nor what plugins of users import. */
export function isBundled(path: string): boolean {
  return /^node_modules\/(?!koffi\/|@koromix\/|zod\/)/.test(path);
}

/** Files below a directory, as paths from it with slashes. */
export function filesBelow(directory: string): string[] {
  return globSync("**/*", { cwd: directory, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)).replaceAll("\\", "/"));
}

function prune(directory: string): void {
  let bytes = 0;
  const name = directory.replace(/\/+$/, "").split("/").at(-1) ?? "";
  const dead = filesBelow(directory).filter(
    (path) => isBundled(`${name}/${path}`) || isDeadWeight(`${name}/${path}`),
  );
  for (const path of dead) {
    bytes += statSync(join(directory, path)).size;
    rmSync(join(directory, path));
  }
  console.log(`${directory}: ${dead.length} files, ${(bytes / 1e6).toFixed(1)} MB taken out`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href)
  for (const directory of process.argv.slice(2)) prune(directory);
