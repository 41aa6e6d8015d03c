/**
 * Uses an installed package as a stranger would: `node scripts/smoke.ts DIRECTORY`.
 *
 * The directory has the package in its node_modules. A file is written there with a plugin of its own, checked,
 * served, and one request goes through it.
 */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, request } from "node:http";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

const directory = resolve(process.argv[2] ?? ".");
const program = join(directory, "node_modules/.bin/authbridge-proxy");
const startLimitMs = 20_000;

const backend = createServer((incoming, response) => {
  response.end(incoming.headers["x-greeting"] ?? "no greeting");
});
await new Promise<void>((done) => backend.listen(0, "127.0.0.1", done));
const { port: backendPort } = backend.address() as AddressInfo;

const example = new URL("../examples/hello-plugin/", import.meta.url);
const plugin = readFileSync(new URL("hello.ts", example), "utf8");
const imported = plugin.replace("../../src/pipeline/plugin.ts", "authbridge-proxy/plugin");
if (imported === plugin) throw new Error("the example no longer imports what this script replaces");
// .mts is a module in every project, whatever its package.json says.
writeFileSync(join(directory, "hello.mts"), imported);
const config = readFileSync(new URL("config.yaml", example), "utf8").replace(
  "hello.ts",
  "hello.mts",
);
writeFileSync(join(directory, "config.yaml"), config);

const env = { ...process.env, PROXY_PORT: "0", AGENT_URL: `http://127.0.0.1:${backendPort}` };
const options = { cwd: directory, env, encoding: "utf8" } as const;
const effective = execFileSync(program, ["check", "--config", "config.yaml"], options);
if (!effective.includes('"good day"')) throw new Error("check did not print the configuration");
console.log("check printed the effective configuration");

const proxy = spawn(program, ["--config", "config.yaml"], {
  cwd: directory,
  env,
  stdio: ["ignore", "ignore", "pipe"],
});
process.once("exit", () => proxy.kill("SIGKILL"));
const late = setTimeout(() => {
  throw new Error("the proxy did not start in time");
}, startLimitMs);
let reversePort = 0;
for await (const line of createInterface({ input: proxy.stderr })) {
  if (!line.includes('"serving"')) continue;
  const { addresses } = JSON.parse(line) as { addresses: { reverse: { port: number } } };
  reversePort = addresses.reverse.port;
  break;
}
clearTimeout(late);
proxy.stderr.resume();

const call = request({ host: "127.0.0.1", port: reversePort, path: "/" }).end();
const [response] = (await once(call, "response")) as [IncomingMessage];
let body = "";
for await (const chunk of response) body += String(chunk);
console.log(`one request: ${response.statusCode}, the backend saw: ${body}`);
if (body !== "good day, somebody") throw new Error("the request went another way");

proxy.kill("SIGTERM");
const [code] = (await once(proxy, "exit")) as [number | null];
console.log(`SIGTERM: exit code ${code}`);
backend.close();
process.exitCode = code === 0 ? 0 : 1;
