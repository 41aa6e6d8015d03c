/** The check of the packages refuses what it is there to refuse, and the bill of materials is whole. */
import { describe, expect, test } from "vitest";
import {
  billOfMaterials,
  lockedPackages,
  nameOf,
  shippedPackages,
} from "../../../scripts/bill-of-materials.ts";
import { rowsOf, supplyChainFaults } from "../../../scripts/supply-chain.ts";

const manifest = {
  dependencies: { jose: "^6.0.0" },
  optionalDependencies: {},
  allowScripts: { koffi: false },
};
const jose = { version: "6.2.17", integrity: "sha512-x", license: "MIT" };
const rows = new Map([["jose", "6.2.17"]]);

describe("packages", () => {
  test("a lockfile without a fault has none", () => {
    expect(
      supplyChainFaults(manifest, { "": { version: "1.0.0" }, "node_modules/jose": jose }, rows),
    ).toEqual([]);
  });

  test.each([
    ["no hash", { ...jose, integrity: "" }, "no sha512 integrity"],
    ["a weak hash", { ...jose, integrity: "sha1-x" }, "no sha512 integrity"],
    [
      "a download host",
      { ...jose, resolved: "https://registry.example/jose.tgz" },
      "downloaded from",
    ],
    ["a licence that is not on the list", { ...jose, license: "AGPL-3.0-only" }, "AGPL-3.0-only"],
    ["no licence", { version: "6.2.17", integrity: "sha512-x" }, "licence not named"],
    ["a script", { ...jose, hasInstallScript: true }, "allowScripts"],
    ["another version than the page says", { ...jose, version: "6.3.0" }, "jose is 6.3.0"],
  ])("%s is a fault", (_name, locked, words) => {
    expect(supplyChainFaults(manifest, { "node_modules/jose": locked }, rows)).toEqual([
      expect.stringContaining(words),
    ]);
  });

  test("what is only for development may have any licence", () => {
    const packages = {
      "node_modules/jose": jose,
      "node_modules/tool": { ...jose, license: "MPL-2.0", dev: true },
    };
    expect(supplyChainFaults(manifest, packages, rows)).toEqual([]);
  });

  test("a package without a row, and a row without a package, are faults", () => {
    const packages = { "node_modules/jose": jose };
    expect(supplyChainFaults(manifest, packages, new Map([["ajv", "8.0.0"]]))).toEqual([
      expect.stringContaining("jose is 6.2.17 in the lockfile and without a row there"),
      expect.stringContaining("ajv has a row and is no dependency"),
    ]);
  });

  test("a row is a name and a version", () => {
    expect([
      ...rowsOf("| `@a/b` | 1.2.3 | x |\n| `c` | 1.0.0-rc.1 | y |\n| text | 1.0.0 | z |\n"),
    ]).toEqual([
      ["@a/b", "1.2.3"],
      ["c", "1.0.0-rc.1"],
    ]);
  });
});

test("the bill of materials names every package that is shipped, those that development uses too, and no other", () => {
  const packages = lockedPackages();
  const bill = billOfMaterials(packages);
  const shipped = shippedPackages(packages).map(
    ([path, { version }]) => `${nameOf(path)}@${version}`,
  );
  const named = bill.components.map((component) => component["bom-ref"]);
  expect([...new Set(named)].sort()).toEqual([...new Set(shipped)].sort());
  expect(named.join(" ")).toMatch(/\bzod@/);
  expect(named.join(" ")).not.toMatch(/\bvitest@/);
  const refs = new Set(bill.dependencies.map(({ ref }) => ref));
  expect(named.filter((ref) => !refs.has(ref))).toEqual([]);
});
