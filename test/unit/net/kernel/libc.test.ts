import { expect, test } from "vitest";
import { loadLibc } from "../../../../src/net/kernel/libc.ts";

const libc = await loadLibc();

test.skipIf(typeof libc === "string")("calls a function of the C library", () => {
  if (typeof libc === "string") return;
  expect(libc.bind("int getpid()")()).toBe(process.pid);
});

test.skipIf(typeof libc === "string")("a failed call leaves its errno", () => {
  if (typeof libc === "string") return;
  const closeFd = libc.bind("int close(int)");
  expect(closeFd(-1)).toBe(-1);
  expect(libc.errno()).toBe(9);
});
