/** The messages of schema problems, the same for every part of the file. */
import type { z } from "zod";

/** Words for the issues that have none of their own. They name types, never values. */
export function wordIssue(issue: z.core.$ZodRawIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return issue.input === undefined
        ? "is required"
        : `must be ${kindNames[issue.expected] ?? issue.expected}, not ${kindOf(issue.input)}`;
    case "invalid_value":
      return `must be ${issue.values.map((value) => JSON.stringify(value)).join(" or ")}`;
    case "too_small":
      return `must ${amount("at least", issue.minimum, issue.origin)}`;
    case "too_big":
      return `must ${amount("at most", issue.maximum, issue.origin)}`;
    case "invalid_key":
      return "has a key that is not allowed here";
    case "not_multiple_of":
    case "invalid_format":
    case "unrecognized_keys":
    case "invalid_union":
    case "invalid_element":
    case "custom":
      break;
  }
  return "is not valid";
}

const kindNames: Readonly<Record<string, string>> = {
  string: "a text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "a mapping",
  record: "a mapping",
};

function amount(words: string, limit: number | bigint, origin: string): string {
  const unit = { array: "element", string: "character" }[origin];
  if (unit === undefined) return `be ${words} ${limit}`;
  return `have ${words} ${limit} ${unit}${Number(limit) === 1 ? "" : "s"}`;
}

function kindOf(value: unknown): string {
  if (value === null) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "number" && !Number.isInteger(value)) return "a fraction";
  return kindNames[typeof value] ?? typeof value;
}
