/** Reads a file that one schema describes: its value, or every problem with its place. */
import type { z } from "zod";
import { YamlDocument } from "./document.ts";
import { withoutEmpty } from "./empty-values.ts";
import { formatKeyPath, formatProblem, type Problem } from "./problem.ts";
import { check } from "./schema-remarks.ts";

/** Problems that one Error spells out. */
const maxListed = 50;

/** The checked value; throws an Error with every problem, a line each. An empty file is `ifEmpty`. */
export function readYaml<Schema extends z.ZodType>(
  schema: Schema,
  { text, file, ifEmpty }: { readonly text: string; readonly file: string; ifEmpty?: unknown },
): z.output<Schema> {
  const document = new YamlDocument(text);
  const value = document.value ?? ifEmpty;
  const problems: Problem[] = document.problems.map((problem) => ({
    file,
    keyPath: "",
    ...problem,
  }));
  if (problems.length === 0) {
    const checked = check(schema, withoutEmpty(schema, value));
    if (checked.kind === "valid") return checked.data;
    for (const { path, ...remark } of checked.remarks)
      problems.push({ file, ...document.locate(path), keyPath: formatKeyPath(path), ...remark });
  }
  throw new Error(problems.slice(0, maxListed).map(formatProblem).join("\n"));
}
