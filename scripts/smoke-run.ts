/**
 * `npx authbridge-proxy run -- COMMAND` from an installed package: `node scripts/smoke-run.ts DIRECTORY`.
 *
 * Each client asks for a name that nobody has (RFC 6761). The answer that says so comes from the proxy, inside TLS: a
 * client that can read it found the proxy and trusts its certificate, and knew of neither before. Then the five-minute path of
 * README.md is walked, word by word.
 */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { enclosureProblem } from "../src/cli/enforce/namespace.ts";
import { walkReadme } from "../test/support/readme-path.ts";

const directory = resolve(process.argv[2] ?? ".");
const url = "https://nobody.invalid/";

const agent = `fetch("${url}").then((answer) => answer.text()).then(console.log);\n`;
const script = `import urllib.request, urllib.error
try:
    urllib.request.urlopen("${url}")
except urllib.error.HTTPError as answer:
    print(answer.read().decode())
`;
writeFileSync(join(directory, "agent.js"), agent);
writeFileSync(join(directory, "script.py"), script);

const clients = [
  ["node", "agent.js"],
  ["curl", "-sS", url],
  ["python3", "script.py"],
] as const;

let failures = 0;
for (const [program, ...args] of clients) {
  if (spawnSync(program, ["--version"]).error !== undefined) {
    console.log(`SKIPPED: run -- ${program} (not on this machine)`);
    continue;
  }
  const { status, stdout, stderr } = spawnSync(
    "npx",
    ["--no-install", "authbridge-proxy", "run", "--", program, ...args],
    { cwd: directory, encoding: "utf8", timeout: 60_000 },
  );
  const isAnswered = stdout.includes('"upstream.unresolvable"');
  const isTold = /failed {2}nobody\.invalid:443 {2}GET {2}upstream\.unresolvable/.test(stderr);
  console.log(`run -- ${program}: exit code ${status}, answered ${isAnswered}, told ${isTold}`);
  if (status === 0 && isAnswered && isTold) continue;
  failures += 1;
  console.log(stdout, stderr);
}
const problem = process.platform === "linux" ? enclosureProblem() : "only Linux has namespaces";
if (problem !== undefined) console.log(`SKIPPED: run --enforce of README.md (${problem})`);
const canEnforce = problem === undefined;
const { steps, faults } = await walkReadme({ directory, env: process.env, canEnforce });
for (const { command, code } of steps) console.log(`${command}\n  exit code ${code}`);
for (const fault of faults) console.log(fault);
failures += faults.length;
process.exitCode = failures === 0 ? 0 : 1;
