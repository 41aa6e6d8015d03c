/** Output that nobody reads, or that cannot be written, ends no command before it is done, and no trace is printed. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { describe, expect, onTestFinished, test } from "vitest";
import { within } from "../support/eventually.ts";
import { mainFile } from "../support/program.ts";

interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A line of a shell in which `authbridge` is the program. */
async function shell(line: string, env: Readonly<Record<string, string>> = {}): Promise<Ran> {
  const program = `authbridge() { "${process.execPath}" "${mainFile}" "$@"; }`;
  const child = spawn("bash", ["-c", `set -o pipefail; ${program}; ${line}`], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const [stdout, stderr] = [text(child.stdout), text(child.stderr)];
  await within("the end", once(child, "close"), 25_000);
  return { code: child.exitCode, stdout: await stdout, stderr: await stderr };
}

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "authbridge-test-"));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test("a reader who has seen enough leaves the exit code as it is", async () => {
  const { code, stdout, stderr } = await shell("authbridge schema | head -1");
  expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: "{\n", stderr: "" });
});

describe.skipIf(process.platform !== "linux")("a full device", () => {
  test.each(["schema", "--help", "--version"])("%s says so and fails", async (command) => {
    const { code, stderr } = await shell(`authbridge ${command} > /dev/full`);
    expect(stderr).toBe("authbridge-proxy: standard output cannot be written: no space is left\n");
    expect(code).toBe(1);
  });

  test("for messages changes no exit code", async () => {
    const { code } = await shell("authbridge nothing-of-the-kind 2> /dev/full");
    expect(code).toBe(2);
  });

  test("for messages does not keep a command from being run, nor its directory from being removed", async () => {
    const TMPDIR = folder();
    const line = "authbridge run -- sh -c 'echo done; exit 7' 2> /dev/full";
    expect(await shell(line, { TMPDIR })).toEqual({ code: 7, stdout: "done\n", stderr: "" });
    expect(readdirSync(TMPDIR)).toEqual([]);
  });
});

test.each(["run -- true", "doctor --config /dev/null"])(
  "%s without a place for temporary files names the variable",
  async (command) => {
    const { code, stdout, stderr } = await shell(`authbridge ${command}`, { TMPDIR: "/dev/null" });
    expect(stderr).toMatch(/^authbridge-proxy: no temporary directory .*\/dev\/null.*TMPDIR.*\n$/);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  },
);
