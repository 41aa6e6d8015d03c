/** Envoy's StringMatcher, over names of header fields. */
import { z } from "zod";
import { compileLinearPattern } from "../../policy/tools/linear-pattern.ts";
import { messageOf } from "../../errors.ts";

const kinds = ["exact", "prefix", "suffix", "contains", "safe_regex"] as const;

const matcher = z
  .strictObject({
    exact: z.string().optional().describe("The whole name."),
    prefix: z.string().min(1).optional().describe("How it begins."),
    suffix: z.string().min(1).optional().describe("How it ends."),
    contains: z.string().min(1).optional().describe("A part of it."),
    safe_regex: z
      .strictObject({ regex: z.string().min(1).describe("In the syntax of RE2.") })
      .optional()
      .describe("A regular expression that the whole name matches."),
    ignore_case: z
      .boolean()
      .default(true)
      .describe(
        "Names of fields have no case: it is ignored, and false is refused where a text has upper case.",
      ),
  })
  .superRefine((value, context) => {
    const given = kinds.filter((kind) => value[kind] !== undefined);
    if (given.length !== 1)
      context.addIssue({ code: "custom", message: `needs one of ${kinds.join(", ")}` });
    const texts = [value.exact, value.prefix, value.suffix, value.contains];
    if (!value.ignore_case && texts.some((text) => text !== text?.toLowerCase())) {
      const message = "must not be false: names are compared in lower case, and this one has upper";
      context.addIssue({ code: "custom", path: ["ignore_case"], message });
    }
    if (value.safe_regex === undefined) return;
    try {
      compileLinearPattern(value.safe_regex.regex);
    } catch (error) {
      const path = ["safe_regex", "regex"];
      context.addIssue({ code: "custom", path, message: messageOf(error) });
    }
  });

/** The schema of `{patterns: […]}`; a text stands for `exact`. */
export function patternList() {
  return z.strictObject({
    patterns: z
      .array(z.union([z.string().min(1), matcher]))
      .max(256)
      .describe("Names of fields, or Envoy's matchers for them; one that matches is enough."),
  });
}

type PatternList = z.output<ReturnType<typeof patternList>>;

/** Whether a name, in lower case, is in a list. */
export class StringMatcher {
  readonly #tests: readonly ((name: string) => boolean)[];

  constructor({ patterns }: PatternList) {
    this.#tests = patterns.map(testOf);
  }

  /** Undefined where there is no list. */
  static of(list: PatternList | undefined): StringMatcher | undefined {
    return list === undefined ? undefined : new StringMatcher(list);
  }

  matches(name: string): boolean {
    return this.#tests.some((test) => test(name));
  }
}

function testOf(pattern: PatternList["patterns"][number]): (name: string) => boolean {
  if (typeof pattern === "string") return equal(pattern);
  const { exact, prefix, suffix, contains, safe_regex: expression } = pattern;
  if (exact !== undefined) return equal(exact);
  if (prefix !== undefined) return (name) => name.startsWith(prefix.toLowerCase());
  if (suffix !== undefined) return (name) => name.endsWith(suffix.toLowerCase());
  if (contains !== undefined) return (name) => name.includes(contains.toLowerCase());
  const compiled = compileLinearPattern(expression?.regex ?? "", { ignoresCase: true });
  return (name) => compiled.matchesWhole(name);
}

function equal(pattern: string): (name: string) => boolean {
  const wanted = pattern.toLowerCase();
  return (name) => name === wanted;
}
