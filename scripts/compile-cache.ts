/**
 * Ships compiled code with an installed program: `node scripts/compile-cache.ts DIRECTORY [UID]`.
 *
 * The directory has dist/ and node_modules/ in the place from which they will run: the cache knows files by their path.
 * Node also keeps one per user and per kind of processor; where none fits, the code is compiled as if there were none.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

const directory = resolve(process.argv[2] ?? ".");
const uid = Number(process.argv[3] ?? process.getuid?.() ?? 0);
const program = join(directory, "dist/main.js");
const cache = join(directory, "dist/compile-cache");
const work = mkdtempSync(join(tmpdir(), "authbridge-cache-"));
process.once("exit", () => rmSync(work, { recursive: true, force: true }));

/** A proxy in which everything that is common has a part; it asks nobody. */
const config = {
  mode: "proxy-sidecar",
  listener: {
    roles: ["forward", "reverse"],
    forward_proxy_addr: "127.0.0.1:0",
    transparent_proxy_addr: "127.0.0.1:0",
    reverse_proxy_addr: "127.0.0.1:0",
    reverse_proxy_backend: "http://127.0.0.1:1",
    session_api_addr: "127.0.0.1:0",
    health_addr: "127.0.0.1:0",
  },
  stats: { address: "127.0.0.1:0" },
  tls_bridge: { mode: "enabled", ca_dir: join(work, "ca"), generate_ca: true },
  telemetry: { otlp: { endpoint: "http://127.0.0.1:1", traces: true, metrics: true } },
  pipeline: {
    inbound: {
      default: "deny",
      plugins: [
        {
          name: "jwt-validation",
          config: { issuer: "http://127.0.0.1:1", audience: "agent" },
        },
      ],
    },
    outbound: {
      default: "deny",
      plugins: [
        { name: "egress-policy", config: { allow: ["a.test:443"] } },
        "mcp-parser",
        "inference-parser",
        "a2a-parser",
        {
          name: "tool-policy",
          config: {
            servers: [
              {
                name: "a",
                hosts: ["a.test"],
                rules: [{ name: "a", tools: ["a"], arguments: { a: { pattern: "a+" } } }],
              },
            ],
          },
        },
        {
          name: "token-exchange",
          config: {
            token_url: "http://127.0.0.1:1/token",
            default_policy: "passthrough",
            no_token_policy: "deny",
            identity: { type: "client-secret", client_id: "a", client_secret: "a" },
          },
        },
      ],
    },
  },
};

async function startAndStop(): Promise<void> {
  const child = spawn(process.execPath, [program, "--config", join(work, "proxy.yaml")], {
    uid,
    gid: uid,
    env: { PATH: process.env["PATH"] },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const said: string[] = [];
  for await (const line of createInterface({ input: child.stderr })) {
    said.push(line);
    if (line.includes('"msg":"serving"')) child.kill("SIGTERM");
  }
  if (child.exitCode === null) await once(child, "exit");
  if (child.exitCode !== 0) throw new Error(`the program did not serve:\n${said.join("\n")}`);
}

chmodSync(work, 0o755);
mkdirSync(join(work, "ca"));
writeFileSync(join(work, "proxy.yaml"), JSON.stringify(config));
rmSync(cache, { recursive: true, force: true });
mkdirSync(cache);
for (const path of [join(work, "ca"), cache]) chownSync(path, uid, uid);
await startAndStop();
const kept = readdirSync(cache, { recursive: true, encoding: "utf8" });
if (kept.length < 10) throw new Error(`no compiled code in ${cache}`);
// Read by whoever runs the program, changed by nobody.
for (const path of ["", ...kept]) {
  const isFolder = path === "" || (path.startsWith("v") && !path.includes("/"));
  chmodSync(join(cache, path), isFolder ? 0o555 : 0o444);
  chownSync(join(cache, path), 0, 0);
}
console.log(`${kept.length} files of compiled code in ${cache}`);
