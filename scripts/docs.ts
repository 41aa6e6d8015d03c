/**
 * Writes config/schema.json, config/policy.schema.json and docs/configuration.md from the schema; `--check` only says whether they are current.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { format } from "prettier";
import { printSchema } from "../src/cli/schema.ts";
import { buildReference } from "./reference.ts";

const root = new URL("../", import.meta.url);

const schema = JSON.parse(printSchema()) as Readonly<Record<string, unknown>>;
const outputs = {
  "config/schema.json": await format(JSON.stringify(schema), { parser: "json", printWidth: 100 }),
  "config/policy.schema.json": await format(printSchema(true), { parser: "json", printWidth: 100 }),
  "docs/configuration.md": await format(buildReference(schema), {
    parser: "markdown",
    printWidth: 100,
  }),
};

const isCheck = process.argv.includes("--check");
for (const [path, text] of Object.entries(outputs)) {
  const file = new URL(path, root);
  if (!isCheck) {
    writeFileSync(file, text);
  } else if (readOrEmpty(file) !== text) {
    process.stderr.write(`${path} is stale: run npm run docs\n`);
    process.exitCode = 1;
  }
}

function readOrEmpty(file: URL): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
