/**
 * The program as few files: `node scripts/bundle.ts`, into dist/ beside the declarations of types (docs/adr: a bundle).
 *
 * What every start needs is dist/program.js, packages included. What a file or a command line may leave out is loaded when it
 * is asked for. The entries of plugins and of programs that embed it share the program's modules, so that there is one of each
 * in a process. Of the declarations those stay that these two entries lead to.
 */
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { rolldown, type GetModuleInfo, type OutputChunk, type Plugin } from "rolldown";

const root = join(import.meta.dirname, "..");
const source = join(root, "src");
const output = join(root, "dist");

const entries = {
  main: join(source, "main.ts"),
  "pipeline/plugin": join(source, "pipeline/plugin.ts"),
  "embed/proxy": join(source, "embed/proxy.ts"),
  // A thread shares no modules.
  "opa/wasm-worker": join(source, "opa/wasm-worker.ts"),
  // Nor does a process in a namespace of its own.
  "cli/enforce/relay": join(source, "cli/enforce/relay.ts"),
  // Nor does one that has the terminal.
  "cli/run/prompt": join(source, "cli/run/prompt.ts"),
  // Loaded anew in each thread, from the same files.
  "serving-thread": join(source, "serving-thread.ts"),
};
/** Native code, which its package finds by itself. */
const external = ["koffi"];

/** `createRequire` is how a package's file is named without its index, or loaded late without waiting. */
const loader = /^const (\w+) = createRequire\(import\.meta\.url\);$/gm;

/**
 * The module as the bundler has to see it, each line where it was.
 *
 * Packages behind `createRequire` come along, and `import.meta.url` is the place that the module has in src/, below dist/:
 * whatever file the code went to, the thread, the console's files and package.json are found from there.
 */
function adapt(code: string, id: string): string {
  let adapted = code;
  for (const [line, name] of code.matchAll(loader))
    adapted = adapted.replace(line, "").replaceAll(`${name}("`, 'require("');
  const place = relative(source, id).replaceAll("\\", "/").replace(/\.ts$/, ".js");
  return adapted
    .replaceAll('createRequire(import.meta.url)("', 'require("')
    .replaceAll("import.meta.url", `new URL("./${place}", import.meta.url).href`);
}

/** What is loaded before the cache of compiled code is there, what a plugin loads, and what every proxy that serves does. */
const early = new Set<string>();
const surface = new Set<string>();
const common = new Set<string>();

function addImports(id: string, to: Set<string>, infoOf: GetModuleInfo): void {
  if (to.has(id)) return;
  to.add(id);
  for (const next of infoOf(id)?.importedIds ?? []) addImports(next, to, infoOf);
}

const ours: Plugin = {
  name: "authbridge",
  transform: {
    order: "pre",
    handler(code, id) {
      // Without maps of packages: they are four times as large, and their names stay readable.
      if (!id.startsWith(source)) return { code, map: { mappings: "" } };
      const adapted = adapt(code, id);
      if (adapted.includes("createRequire("))
        throw new Error(`${id}: createRequire is not bundled`);
      if (adapted === code) return undefined;
      const mappings = code.split("\n").map((_line, index) => (index === 0 ? "AAAA" : "AACA"));
      return {
        code: adapted,
        map: { version: 3, sources: [id], names: [], mappings: mappings.join(";") },
      };
    },
  },
  buildEnd() {
    addImports(entries.main, early, this.getModuleInfo);
    addImports(entries["pipeline/plugin"], surface, this.getModuleInfo);
    addImports(join(source, "cli/serve.ts"), common, this.getModuleInfo);
  },
};

const bundle = await rolldown({
  cwd: root,
  input: entries,
  platform: "node",
  external,
  // One copy, for `import` and `require`.
  resolve: { alias: { re2js: join(root, "node_modules/re2js/build/index.js") } },
  plugins: [ours],
  onLog: (_level, log) => {
    // Where a package comes with `require` as well, its chunk is one that is loaded late all the same.
    if (log.code !== "INEFFECTIVE_DYNAMIC_IMPORT") throw new Error(log.message);
  },
});
const { output: files } = await bundle.write({
  dir: output,
  format: "esm",
  sourcemap: true,
  sourcemapExcludeSources: true,
  comments: false,
  // Names of functions and classes stay, for stack traces; in ASCII alone V8 keeps one byte for a character.
  minify: {
    compress: { keepNames: { function: true, class: true } },
    mangle: { keepNames: true },
    codegen: { removeWhitespace: true, asciiOnly: true },
  },
  chunkFileNames: ({ name, facadeModuleId }) =>
    `${/src\/plugins\/([^/]+)\/plugin\.ts$/.exec(facadeModuleId ?? "")?.[1] ?? name}.js`,
  codeSplitting: {
    groups: [
      { name: "early", test: (id) => early.has(id) && id !== entries.main, priority: 3 },
      { name: "plugin-surface", test: (id) => surface.has(id), priority: 2 },
      { name: "program", test: (id) => common.has(id), priority: 1 },
    ],
  },
});
await bundle.close();

const chunks = files.filter((file): file is OutputChunk => file.type === "chunk");
writeFileSync(join(output, "THIRD-PARTY-NOTICES.txt"), notices(chunks));
cpSync(join(source, "admin/console"), join(output, "admin/console"), {
  recursive: true,
  filter: (path) => !path.endsWith("tsconfig.json"),
});
const declared = new Set<string>();
for (const entry of ["pipeline/plugin", "embed/proxy"])
  addDeclarations(join(output, `${entry}.d.ts`), declared);
for (const file of readdirSync(output, { recursive: true, encoding: "utf8" })) {
  const path = join(output, file);
  if (file.endsWith(".d.ts") && !declared.has(path)) rmSync(path);
}

function addDeclarations(path: string, to: Set<string>): void {
  if (to.has(path)) return;
  to.add(path);
  const text = readFileSync(path, "utf8");
  for (const [, name = ""] of text.matchAll(/(?:from |import\()"(\.[^"]+)\.(?:js|ts)"/g))
    addDeclarations(join(dirname(path), `${name}.d.ts`), to);
}

/** The licences of the packages whose code is in the bundle. */
function notices(from: readonly OutputChunk[]): string {
  const folders = new Set(
    from.flatMap(({ moduleIds }) =>
      moduleIds.flatMap((id) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(id)?.[0] ?? []),
    ),
  );
  const parts = [...folders].sort().map((folder) => {
    const { name, version, license } = JSON.parse(
      readFileSync(join(folder, "package.json"), "utf8"),
    ) as Readonly<Record<"name" | "version" | "license", string>>;
    const texts = readdirSync(folder).filter((file) =>
      /^(?:licen[cs]e|notice|copying)/i.test(file),
    );
    return `${name} ${version} (${license})\n\n${texts.map((text) => readFileSync(join(folder, text), "utf8").trim()).join("\n\n")}\n`;
  });
  return parts.join(`\n${"-".repeat(80)}\n\n`);
}
