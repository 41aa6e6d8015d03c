/**
 * What the image adds to its base, from the build context and without a container engine: `node scripts/image-size.ts`.
 *
 * Puts together what the Dockerfile's last stage copies (after `npm run build`), prunes it as the build does, starts the
 * program from there, and prints the size of the layers.
 */
import { execFileSync, type ExecFileSyncOptionsWithStringEncoding } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { filesBelow, isBundled, isDeadWeight } from "./prune-modules.ts";

/** More than this is a mistake, such as a development dependency in the image. */
const maxBytes = 20e6;

const root = resolve(import.meta.dirname, "..");
const stage = mkdtempSync(join(tmpdir(), "authbridge-image-"));
process.once("exit", () => rmSync(stage, { recursive: true, force: true }));
const npm = {
  cwd: root,
  encoding: "utf8",
  maxBuffer: 1e8,
  stdio: ["ignore", "pipe", "ignore"],
} satisfies ExecFileSyncOptionsWithStringEncoding;

function take(path: string): void {
  const isKept = (source: string): boolean => {
    const name = relative(root, source).replaceAll("\\", "/");
    // Nested packages are listed by themselves.
    if (/^node_modules\/.*\/node_modules$/.test(name)) return false;
    return !statSync(source).isFile() || !(isDeadWeight(name) || isBundled(name));
  };
  mkdirSync(dirname(join(stage, path)), { recursive: true });
  cpSync(join(root, path), join(stage, path), { recursive: true, filter: isKept });
}

const packages = execFileSync("npm", ["ls", "--omit=dev", "--all", "--parseable"], npm)
  .split("\n")
  .map((path) => relative(root, path))
  .filter((path) => path.startsWith("node_modules"));
for (const path of [...packages, "dist"]) take(path);
for (const path of ["config/init", "config/prices", "package.json", "LICENSE"])
  cpSync(join(root, path), join(stage, path), { recursive: true });
const bill = execFileSync("npm", ["sbom", "--omit=dev", "--sbom-format=cyclonedx"], npm);
writeFileSync(join(stage, "sbom.cdx.json"), bill);

// What stays of the packages is found from there; the bundle's entry for plugins is.
const imports = ["koffi", "zod", "authbridge-proxy/plugin"].map(
  (name) => `await import("${name}");`,
);
execFileSync(process.execPath, ["--input-type=module", "-e", imports.join("")], { cwd: stage });
execFileSync(process.execPath, [join(root, "scripts/compile-cache.ts"), stage]);

const program = join(stage, "dist/main.js");
const version = execFileSync(process.execPath, [program, "--version"], { encoding: "utf8" }).trim();
const starter = join(stage, "starter.yaml");
execFileSync(process.execPath, [program, "init", "--sidecar", "--config", starter]);
execFileSync(process.execPath, [program, "check", "--config", starter], {
  stdio: ["ignore", "ignore", "inherit"],
});
rmSync(starter);

const files = filesBelow(stage);
const bytes = files.reduce((sum, path) => sum + statSync(join(stage, path)).size, 0);
const archive = execFileSync("tar", ["-cf", "-", "-C", stage, "."], { maxBuffer: 1e9 });
const components = (JSON.parse(bill) as { components: unknown[] }).components.length;
console.log(`${version}: starts from what the image would hold`);
console.log(
  `${files.length} files, ${(bytes / 1e6).toFixed(1)} MB, ${(gzipSync(archive).length / 1e6).toFixed(1)} MB compressed, ${components} packages in the bill of materials`,
);
if (bytes > maxBytes) throw new Error(`more than ${maxBytes / 1e6} MB`);
