import { expect, test } from "vitest";
import { parseSize, sizeBytes } from "../../../src/config/size.ts";

test.each([
  [0, 0],
  [65_536, 65_536],
  ["12", 12],
  ["12B", 12],
  ["64KiB", 65_536],
  ["1MiB", 1_048_576],
  ["2GiB", 2_147_483_648],
])("reads %j as %d bytes", (value, bytes) => {
  expect(sizeBytes(value)).toBe(bytes);
});

test.each([
  "",
  "KiB",
  "1.5MiB",
  "1MB",
  "1 MiB",
  "-1",
  "1kib",
  "99999999999999GiB",
  -1,
  1.5,
  Number.NaN,
])("takes %j for no size", (value) => {
  expect(parseSize(value)).toBeUndefined();
});
