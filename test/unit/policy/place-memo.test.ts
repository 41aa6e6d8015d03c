import { expect, test } from "vitest";
import { PlaceMemo } from "../../../src/policy/place-memo.ts";

test("a place is found once, ports of one host are told apart, and strangers cannot fill memory", () => {
  const found: string[] = [];
  const memo = new PlaceMemo((host, port) => {
    found.push(`${host}:${port}`);
    return { host, port };
  });
  for (const port of [80, 443, 80, 443]) expect(memo.of("a", port)).toEqual({ host: "a", port });
  expect(found).toEqual(["a:80", "a:443"]);
  // As many as are remembered, by ports and then by hosts: the first one is forgotten.
  for (let port = 1_000; port < 1_511; port += 1) memo.of("a", port);
  memo.of("a", 443);
  expect(found.at(-1)).toBe("a:443");
  for (let host = 0; host < 512; host += 1) memo.of(`host${host}`, 1);
  memo.of("a", 443);
  expect(found.at(-1)).toBe("a:443");
});
