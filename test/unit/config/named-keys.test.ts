/** An option that is accepted and ignored is a defect: every key of the file is named by a test that could notice. */
import { readdirSync, readFileSync } from "node:fs";
import { extname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const self = fileURLToPath(import.meta.url);

/** Keys that no test has to name, each with the reason; one that a test names is no exception any more. */
const exceptions: Readonly<Record<string, string>> = {};

/** TEMPORARY: keys whose tests are being written on another branch. To be emptied when it lands. */
const untilTheOtherHalfLands: readonly string[] = [
  "graphql_max_body_bytes",
  "json_rpc",
  "strict_tool_names",
  "allow_uninspected_credentials",
  "signing_service",
  "signing_region",
  "advisor_proposed",
  "provider_credentialed",
  "harness",
  "unresolved_identity",
  "ignore_case",
  "include_peer_certificate",
  "include_executable",
  "credential_fields",
  "max_depth",
  "max_decoded_bytes",
  "pause_timeout",
  "pause_timeout_action",
  "pause_grace_period",
  "refresh_interval",
  "redis_unavailable",
  "reflector_bearer_file",
  "api_key_file",
  "remove_invisible",
  "least_score",
  "secret_id_file",
  "organization",
  "subject_token_url",
  "jwt_svid_audience",
  "id_token_audience",
  "rotated_token_file",
];

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
  const excused = new Set([...Object.keys(exceptions), ...untilTheOtherHalfLands]);
  expect([...keys].filter((key) => !named.has(key) && !excused.has(key))).toEqual([]);
});

test("an exception is a key, and one that no test names", () => {
  expect(Object.keys(exceptions).filter((key) => !keys.has(key) || named.has(key))).toEqual([]);
  expect(untilTheOtherHalfLands.filter((key) => !keys.has(key))).toEqual([]);
});
