/** `--json`: one document on standard output, for programs; the exit codes are those of the text. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runProgram, toYaml } from "../support/program.ts";
import { settings } from "../support/proxy.ts";

let directory = "";
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "authbridge-json-test-"));
  await writeFile(join(directory, "good.yaml"), toYaml(settings()));
  await writeFile(
    join(directory, "bad.yaml"),
    "listener:\n  roles: [forward]\n  forwrd_proxy_addr: 127.0.0.1:0\n",
  );
});
afterAll(() => rm(directory, { recursive: true, force: true }));

async function asked(
  ...args: readonly string[]
): Promise<{ readonly code: number | null; readonly answer: unknown; readonly stderr: string }> {
  const { code, stdout, stderr } = await runProgram(args, { cwd: directory });
  return { code, answer: JSON.parse(stdout), stderr };
}

test("check: the effective configuration, or each problem in its parts", async () => {
  const good = await asked("check", "--config", "good.yaml", "--json");
  expect(good).toMatchObject({ code: 0, stderr: "" });
  expect(good.answer).toMatchObject({
    valid: true,
    problems: [],
    configuration: { listener: { forward_proxy_addr: "127.0.0.1:0" } },
  });
  const { warnings } = good.answer as { warnings: unknown[] };
  expect(warnings).toContainEqual({
    key: "pipeline.outbound.plugins",
    file: "good.yaml",
    line: 1,
    column: 1,
    message: expect.stringContaining("no plugins") as string,
  });
  const bad = await asked("check", "--config", "bad.yaml", "--json");
  expect(bad).toMatchObject({ code: 2, stderr: "" });
  expect(bad.answer).toMatchObject({
    valid: false,
    problems: [
      {
        file: "bad.yaml",
        line: 3,
        column: 3,
        key: "listener.forwrd_proxy_addr",
        suggestion: "forward_proxy_addr",
      },
    ],
  });
  const lenient = await asked("check", "--config", "bad.yaml", "--lenient", "--json");
  expect(lenient.answer).toMatchObject({ valid: expect.any(Boolean) as boolean });
  const missing = await asked("check", "--config", "nowhere.yaml", "--json");
  expect(missing).toMatchObject({ code: 2, answer: { valid: false } });
});

test("check: what the environment lacks is a problem as well", async () => {
  await writeFile(
    join(directory, "unset.yaml"),
    toYaml(settings({ log: { level: "$NOT_SET_ANYWHERE" } })),
  );
  const unset = await asked("check", "--config", "unset.yaml", "--json");
  expect(unset).toMatchObject({ code: 2, answer: { valid: false } });
});

test("doctor: each finding, and a command's own output elsewhere", async () => {
  const command = [process.execPath, "-e", "console.log('of the command')"];
  const found = await asked("doctor", "--config", "good.yaml", "--json", "--", ...command);
  expect(found.stderr).toContain("of the command");
  const { passed, findings } = found.answer as {
    passed: boolean;
    findings: Readonly<Record<string, string>>[];
  };
  expect(passed).toBe(found.code === 0);
  expect(findings[0]).toMatchObject({ check: "file", verdict: "pass" });
  expect(findings.at(-1)).toMatchObject({
    check: "command",
    verdict: "pass",
    text: expect.stringContaining("exited with 0") as string,
  });
  const bad = await asked("doctor", "--config", "bad.yaml", "--json");
  expect(bad).toMatchObject({
    code: 1,
    answer: {
      passed: false,
      findings: [{ check: "file", verdict: "fail", remedy: expect.any(String) as string }],
    },
  });
});

test("policy learn: the policy, whether it was written, and what there is to say", async () => {
  const told = { direction: "outbound", requestId: "1", host: "api.test" };
  const request = { ...told, phase: "request", httpMethod: "GET", httpPath: "/items/1" };
  const refused = { ...told, requestId: "2", phase: "denied" };
  const lines = [request, refused].map((event) => `${JSON.stringify(event)}\n`);
  await writeFile(join(directory, "events.jsonl"), lines.join(""));
  const learn = ["policy", "learn", "--config", "good.yaml", "--from", "events.jsonl", "--json"];
  const shown = await asked(...learn);
  expect(shown).toMatchObject({ code: 0, stderr: "", answer: { written: false } });
  const { policy, notes } = shown.answer as { policy: string; notes: string[] };
  expect(policy).toContain("path: /items/*");
  expect(notes).toContainEqual(expect.stringContaining("1 refused message(s)"));
  const written = await asked(...learn, "--out", "policy.yaml");
  expect(written).toMatchObject({ code: 0, answer: { written: true, policy } });
  expect(await readFile(join(directory, "policy.yaml"), "utf8")).toBe(policy);
  const again = await asked(...learn, "--out", "policy.yaml");
  expect(again).toMatchObject({ code: 0, answer: { written: false, policy } });
});

test.each([
  ["check", "--json"],
  ["doctor", "--json"],
  ["explain", "--config", "good.yaml", "--json"],
  ["policy", "test", "--json"],
  ["policy", "suggest", "--json"],
  ["policy", "learn", "--json"],
])("a mistake in the command line stays on standard error: %s %s", async (...args) => {
  const { code, stdout, stderr } = await runProgram(args, { cwd: directory });
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  expect(stderr).toContain("Usage:");
});

test("policy schema is JSON with and without it", async () => {
  const { code, answer } = await asked("policy", "schema", "--json");
  expect(code).toBe(0);
  expect(answer).toMatchObject({ title: "authbridge-proxy policy file" });
});
