import { expect, test } from "vitest";
import { loadLibc } from "../../../../src/net/kernel/libc.ts";

const loaded = await loadLibc();

test.skipIf("unavailable" in loaded)("calls a function of the C library", () => {
  if ("unavailable" in loaded) return;
  expect(loaded.libc.bind("int getpid()")()).toBe(process.pid);
});

test.skipIf("unavailable" in loaded)("a failed call leaves its errno", () => {
  if ("unavailable" in loaded) return;
  const closeFd = loaded.libc.bind("int close(int)");
  expect(closeFd(-1)).toBe(-1);
  expect(loaded.libc.errno()).toBe(9);
});
