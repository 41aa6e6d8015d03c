/** `npm run demo` keeps every promise of its table, and its `--keep` prints lines that work. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const run = promisify(execFile);
const demo = "examples/demo/main.ts";

test("every step goes as the table promises", async () => {
  const { stdout, stderr } = await run(process.execPath, [demo]);
  expect(stdout).not.toContain("✗");
  expect(stdout.match(/✓/g)).toHaveLength(20);
  expect(stdout).toContain("aud=tickets-api sub=alice act=agent");
  expect(stderr).toBe("");
});

test("refuses an option that it does not have", async () => {
  await expect(run(process.execPath, [demo, "--kep"])).rejects.toMatchObject({ code: 2 });
});

const hasCurl = await run("curl", ["--version"]).then(
  () => true,
  () => false,
);

test.skipIf(!hasCurl)("--keep prints curl lines that work, until it is interrupted", async () => {
  const child = spawn(process.execPath, [demo, "--keep"], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  await new Promise<void>((resolve, reject) => {
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString();
      if (output.includes("Ctrl+C ends it.")) resolve();
    });
    child.once("exit", () => reject(new Error(output)));
  });
  const token = /^TOKEN=(.+)$/m.exec(output)?.[1] ?? "";
  const statuses: number[] = [];
  for (const line of output.match(/^curl .+$/gm) ?? []) {
    const command = `${line} -s -o /dev/null -w 'status:%{http_code}'`;
    const { stdout } = await run("sh", ["-c", command], {
      env: { PATH: process.env["PATH"], TOKEN: token },
    });
    statuses.push(Number(/status:(\d+)$/.exec(stdout)?.[1]));
  }
  expect(statuses).toEqual([401, 200, 200, 200, 403, 200, 200, 200, 200]);
  child.kill("SIGINT");
  const [code] = (await once(child, "exit")) as [number];
  expect(code).toBe(0);
});

test("demo:tools prints the table of tool calls, each row as promised", async () => {
  const { stdout, stderr } = await run(process.execPath, ["examples/mcp-tool-policy/main.ts"]);
  expect(stdout).not.toContain("✗");
  expect(stdout.match(/✓/g)).toHaveLength(10);
  expect(stdout).toMatch(
    /fetch_url\("https:\/\/malicious\.com"\) +\| BLOCKED +\| BLOCKED, JSON-RPC/,
  );
  expect(stdout).toMatch(/fetch_url\("https:\/\/api\.weather\.gov"\) +\| ALLOWED +\| ALLOWED/);
  expect(stdout).toMatch(/169\.254\.169\.254\/metadata"\) +\| BLOCKED +\| BLOCKED, JSON-RPC/);
  expect(stdout).toContain("tools/list shows the agent: fetch_url, read_file");
  expect(stdout).toContain(
    'calls that reached the server: fetch_url("https://api.weather.gov"), read_file',
  );
  expect(stderr).toBe("");
});
