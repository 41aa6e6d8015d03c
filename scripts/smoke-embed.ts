/**
 * The installed package as a library: `node scripts/smoke-embed.ts DIRECTORY`.
 *
 * The example of docs/embed.md runs against it and is checked against its declarations; programs that import or require it end
 * by themselves and say nothing.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const root = resolve(import.meta.dirname, "..");
const directory = resolve(process.argv[2] ?? ".");
const folder = join(directory, "embed");

mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, "package.json"), '{ "type": "module" }\n');
for (const name of ["agent.ts", "agent.test.ts"]) {
  const source = readFileSync(join(root, "examples/embed", name), "utf8");
  const installed = source
    .replace("../../src/embed/proxy.ts", "authbridge-proxy")
    .replace("../../src/pipeline/plugin.ts", "authbridge-proxy/plugin");
  writeFileSync(join(folder, name), installed);
}
// Not what the package brings, but what its user has.
symlinkSync(join(root, "node_modules/vitest"), join(directory, "node_modules/vitest"));

const serve = `const proxy = createProxy();
proxy.listen().then(() => proxy.close());
`;
writeFileSync(
  join(folder, "import.mjs"),
  `import { createProxy } from "authbridge-proxy";\n${serve}`,
);
writeFileSync(
  join(folder, "require.cjs"),
  `const { createProxy } = require("authbridge-proxy");\n${serve}`,
);
writeFileSync(
  join(folder, "types.ts"),
  `import { createProxy, OptionsError, type ProxyEvent } from "authbridge-proxy";
const proxy = createProxy({ limits: { max_tunnels: 7 } });
export const port: number | undefined = proxy.address.forward?.port;
export const first: Promise<IteratorResult<ProxyEvent>> = proxy.events[Symbol.asyncIterator]().next();
export const keys: readonly string[] = new OptionsError([]).problems.map(({ key }) => key);
// @ts-expect-error: the declarations know the keys.
createProxy({ limits: { max_tunnel: 7 } });
`,
);
const compilerOptions = {
  target: "ES2024",
  lib: ["ES2024"],
  module: "NodeNext",
  strict: true,
  noEmit: true,
  allowImportingTsExtensions: true,
  types: ["node"],
  typeRoots: [join(root, "node_modules/@types")],
};
writeFileSync(
  join(folder, "tsconfig.json"),
  JSON.stringify({ compilerOptions: { ...compilerOptions, skipLibCheck: true } }),
);

let failures = 0;

function run(what: string, args: readonly string[], isSilent: boolean): void {
  const options = { cwd: folder, encoding: "utf8", timeout: 120_000 } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, args, options);
  const said = `${stdout}${stderr}`;
  const isGood = status === 0 && !(isSilent && said !== "");
  console.log(`${isGood ? "ok" : "FAILED"}: ${what}`);
  if (isGood) return;
  failures += 1;
  console.log(`exit code ${status}\n${said}`);
}

run("import ends by itself and says nothing", ["import.mjs"], true);
run("require ends by itself and says nothing", ["require.cjs"], true);
run("the example", [join(root, "node_modules/vitest/vitest.mjs"), "run"], false);
run("the declarations", [join(root, "node_modules/typescript/bin/tsc"), "-p", "."], false);
process.exitCode = failures === 0 ? 0 : 1;
