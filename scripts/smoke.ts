/**
 * Uses an installed package as a stranger would: `node scripts/smoke.ts DIRECTORY`.
 *
 * The directory has the package in its node_modules. A file is written there with a plugin of its own, checked, served, and
 * one request goes through it; then another file asks for every part that is loaded late.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
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
const tracing = imported.replace(
  "create: ({ greeting }) => ({",
  'create: ({ greeting }) => (console.error(new Error("made here").stack), {',
);
if (tracing === imported) throw new Error("the example no longer makes what this script replaces");
// .mts is a module in every project, whatever its package.json says.
writeFileSync(join(directory, "hello.mts"), tracing);
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

const { child: proxy, addresses, said } = await serve("config.yaml", env);
const frame = /at .*\/src\/pipeline\/[\w-]+\.ts:\d+:\d+\)?$/m.exec(said);
if (frame === null) throw new Error(`a stack trace names no line of src/:\n${said}`);
console.log(`a stack trace names lines of src/: ${frame[0]}`);

const call = request({ host: "127.0.0.1", port: addresses["reverse"]?.port, path: "/" }).end();
const [response] = (await once(call, "response")) as [IncomingMessage];
let body = "";
for await (const chunk of response) body += String(chunk);
console.log(`one request: ${response.statusCode}, the backend saw: ${body}`);
if (body !== "good day, somebody") throw new Error("the request went another way");

await stop(proxy);
backend.close();

// The thread of OPA, ajv and re2js, node-forge, OpenTelemetry, jose, the console's files; with nowhere to keep compiled code.
cpSync(new URL("../examples/opa/bundle.tar.gz", import.meta.url), join(directory, "bundle.tar.gz"));
writeFileSync(join(directory, "late.json"), JSON.stringify(lateParts()));
const late = await serve("late.json", { ...env, HOME: "/dev/null", XDG_CACHE_HOME: "/dev/null" });
const session = `http://127.0.0.1:${late.addresses["sessions"]?.port}`;
for (const path of ["/", "/console/main.js", "/v1/plugins"]) {
  const { status } = await fetch(session + path);
  console.log(`${path}: ${status}`);
  if (status !== 200) throw new Error(`${path} was not served`);
}
await stop(late.child);

interface Serving {
  readonly child: ChildProcess;
  readonly addresses: Readonly<Record<string, { readonly port: number } | undefined>>;
  /** What it wrote until it served. */
  readonly said: string;
}

async function serve(file: string, environment: NodeJS.ProcessEnv): Promise<Serving> {
  const child = spawn(program, ["--config", file], {
    cwd: directory,
    env: environment,
    stdio: ["ignore", "ignore", "pipe"],
  });
  process.once("exit", () => child.kill("SIGKILL"));
  const limit = setTimeout(() => child.kill("SIGKILL"), startLimitMs);
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stderr })) {
    lines.push(line);
    if (!line.includes('"msg":"serving"')) continue;
    clearTimeout(limit);
    child.stderr.resume();
    const { addresses } = JSON.parse(line) as Pick<Serving, "addresses">;
    return { child, addresses, said: lines.join("\n") };
  }
  throw new Error(`${file} was not served:\n${lines.join("\n")}`);
}

async function stop(child: ChildProcess): Promise<void> {
  child.kill("SIGTERM");
  const [code] = (await once(child, "exit")) as [number | null];
  console.log(`SIGTERM: exit code ${code}`);
  if (code !== 0) throw new Error("the proxy did not end as it should");
}

function lateParts(): object {
  return {
    listener: {
      roles: ["forward"],
      forward_proxy_addr: "127.0.0.1:0",
      transparent_proxy_addr: "127.0.0.1:0",
      session_api_addr: "127.0.0.1:0",
      health_addr: "127.0.0.1:0",
    },
    stats: { address: "127.0.0.1:0" },
    session: { redact: ["secret-[0-9]+"] },
    tls_bridge: { mode: "enabled", ca_dir: "./smoke-ca", generate_ca: true },
    telemetry: { otlp: { endpoint: "http://127.0.0.1:1" } },
    pipeline: {
      outbound: {
        default: "deny",
        plugins: [
          "mcp-parser",
          {
            name: "tool-policy",
            config: {
              servers: [
                {
                  name: "tools",
                  hosts: ["tools.test"],
                  rules: [
                    { name: "names", tools: ["one"], arguments: { name: { pattern: "[a-z]+" } } },
                    { name: "shapes", tools: ["two"], schema: { type: "object" } },
                  ],
                },
              ],
            },
          },
          { name: "opa", config: { bundle_path: "bundle.tar.gz" } },
        ],
      },
    },
  };
}
