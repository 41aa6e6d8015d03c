/** Where compiled code is kept: never where somebody else could have put some. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { compileCacheFolders } from "../../../src/cli/compile-cache.ts";

let program: string;
let caches: string;
beforeEach(() => {
  program = mkdtempSync(join(tmpdir(), "authbridge-program-"));
  caches = mkdtempSync(join(tmpdir(), "authbridge-caches-"));
});
afterEach(() => {
  for (const folder of [program, caches]) rmSync(folder, { recursive: true, force: true });
});

test("the user's own folder is made", () => {
  expect(compileCacheFolders(program, { XDG_CACHE_HOME: caches })).toEqual([
    join(caches, "authbridge-proxy"),
  ]);
});

test("what an image ships comes first", () => {
  mkdirSync(join(program, "compile-cache"));
  expect(compileCacheFolders(program, { XDG_CACHE_HOME: caches })).toEqual([
    join(program, "compile-cache"),
    join(caches, "authbridge-proxy"),
  ]);
});

test.skipIf(process.platform === "win32")("a folder that others can write is not used", () => {
  mkdirSync(join(caches, "authbridge-proxy"));
  chmodSync(join(caches, "authbridge-proxy"), 0o777);
  expect(compileCacheFolders(program, { XDG_CACHE_HOME: caches })).toEqual([]);
});

test("a home that is no place gives none", () => {
  vi.stubEnv("HOME", "");
  try {
    expect(compileCacheFolders(program, {})).toEqual([]);
    expect(compileCacheFolders(program, { XDG_CACHE_HOME: "caches" })).toEqual([]);
  } finally {
    vi.unstubAllEnvs();
  }
});

test("where nothing can be written there is none", () => {
  expect(compileCacheFolders(program, { XDG_CACHE_HOME: "/dev/null" })).toEqual([]);
});
