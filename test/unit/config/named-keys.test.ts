/** An option that is accepted and ignored is a defect: every key of the file is named by a test that could notice. */
import { readdirSync, readFileSync } from "node:fs";
import { extname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const self = fileURLToPath(import.meta.url);

/** Keys that no test has to name, each with the reason; one that a test names is no exception any more. */
const exceptions: Readonly<Record<string, string>> = {};

/** Every name that is a key somewhere in the schema of the file. */
function keysOf(schema: unknown, keys = new Set<string>()): ReadonlySet<string> {
  if (typeof schema !== "object" || schema === null) return keys;
  for (const [word, member] of Object.entries(schema)) {
    if (word === "properties" && typeof member === "object" && member !== null)
      for (const key of Object.keys(member)) keys.add(key);
    keysOf(member, keys);
  }
  return keys;
}

/** Texts that test something; what was once found by chance, and this list, name keys without looking at what they do. */
function texts(): string[] {
  const isListing = (path: string): boolean =>
    path === self || relative(root, path).startsWith(join("test", "fixtures", "fuzz"));
  return readdirSync(join(root, "test"), { recursive: true, encoding: "utf8" })
    .filter((name) => [".ts", ".yaml", ".yml", ".json"].includes(extname(name)))
    .map((name) => join(root, "test", name))
    .filter((path) => !isListing(path))
    .map((path) => readFileSync(path, "utf8"));
}

/** Whole words: max_file is not named by max_files. What a comment says is not tested. */
function wordsOf(text: string): Iterable<string> {
  const code = text.replaceAll(/^[^\S\n]*(?:\/\*[^]*?\*\/|\/\/.*$)/gm, "");
  return code.match(/[\w-]+|\w+/g)?.flatMap((word) => [word, ...word.split("-")]) ?? [];
}

const keys = keysOf(JSON.parse(readFileSync(join(root, "config", "schema.json"), "utf8")));
const named = new Set(texts().flatMap((text) => [...wordsOf(text)]));

test("every key of the file is named by a test", () => {
  expect(keys.size).toBeGreaterThan(500);
  expect([...keys].filter((key) => !named.has(key) && !(key in exceptions))).toEqual([]);
});

test("an exception is a key, and one that no test names", () => {
  expect(Object.keys(exceptions).filter((key) => !keys.has(key) || named.has(key))).toEqual([]);
});
