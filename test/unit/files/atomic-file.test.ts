/** What is put in place of something is a file in place of a file. */
import { execFileSync } from "node:child_process";
import { lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { writeAtomically } from "../../../src/files/atomic-file.ts";

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "atomic-"));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test("a pipe, as a device, stays: nothing would bring it back", async () => {
  const directory = folder();
  const path = join(directory, "pipe");
  execFileSync("mkfifo", [path]);
  await expect(writeAtomically(path, "text", 0o644)).rejects.toThrow("it is not a regular file");
  expect(lstatSync(path).isFIFO()).toBe(true);
  expect(readdirSync(directory)).toEqual(["pipe"]);
});

test("a link is replaced, and what it leads to is not written through", async () => {
  const path = join(folder(), "link");
  symlinkSync("/dev/null", path);
  await writeAtomically(path, "text", 0o644);
  expect(readFileSync(path, "utf8")).toBe("text");
});
