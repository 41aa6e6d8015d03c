/** JSON Schema 2020-12 on the arguments of a call, compiled once by ajv. */
import { createRequire } from "node:module";
import type { Ajv2020 } from "ajv/dist/2020.js";
import { compileLinearPattern, maxPatternText } from "./linear-pattern.ts";

/** A compiled schema. */
export interface ArgumentSchema {
  /** What is wrong with the arguments, in words for the caller; undefined when nothing is. */
  objection(args: unknown): string | undefined;
  /** Whether they match, or nobody can say: what a rule that refuses is about. */
  mayMatch(args: unknown): boolean;
}

const dialect = "https://json-schema.org/draft/2020-12/schema";
/** Comparing every item with every other one takes the square of their number. */
const mostUniqueItems = 1000;
const maxObjection = 300;
const unclear = `the arguments have a text of more than ${maxPatternText} characters where the rule has a pattern, or are nested too deep`;

/** Compiles a schema; throws an Error that says what is wrong with it and where. */
export function compileArgumentSchema(schema: Readonly<Record<string, unknown>>): ArgumentSchema {
  const { $schema } = schema;
  if ($schema !== undefined && $schema !== dialect) {
    throw new Error(`"$schema" must be "${dialect}"`);
  }
  refuseSlowKeywords(schema, "");
  const { Ajv2020: Compiler } = createRequire(import.meta.url)("ajv/dist/2020.js") as {
    readonly Ajv2020: typeof Ajv2020;
  };
  const ajv = new Compiler({
    // What ajv would ignore is an error: a keyword or format that judges nothing is no rule.
    strict: true,
    allowUnionTypes: true,
    strictRequired: false,
    strictTuples: false,
    strictTypes: false,
    addUsedSchema: false,
    logger: false,
    code: { regExp: linearRegExp },
  });
  const validate = ajv.compile({ ...schema });
  const objection = (args: unknown): string | undefined => {
    try {
      if (validate(args)) return undefined;
    } catch (error) {
      if (error instanceof RangeError) return unclear;
      throw error;
    }
    const [error] = validate.errors ?? [];
    if (error === undefined) return "the arguments do not match the schema of the rule";
    const where = error.instancePath === "" ? "the arguments" : error.instancePath;
    return `${where} ${error.message ?? "do not match"}`.slice(0, maxObjection);
  };
  return {
    objection,
    mayMatch(args) {
      const reason = objection(args);
      return reason === undefined || reason === unclear;
    },
  };
}

const linearRegExp = Object.assign(
  (source: string) => {
    const pattern = compileLinearPattern(source);
    // ajv tells compiled patterns apart by their text.
    return { test: (text: string) => pattern.finds(text), toString: () => source };
  },
  { code: "compileLinearPattern" },
);

function refuseSlowKeywords(schema: unknown, where: string): void {
  if (typeof schema !== "object" || schema === null) return;
  const { uniqueItems, maxItems } = schema as Readonly<Record<string, unknown>>;
  const isBounded = typeof maxItems === "number" && maxItems <= mostUniqueItems;
  if (uniqueItems === true && !isBounded) {
    throw new Error(
      `${where === "" ? "the schema" : where} has uniqueItems without maxItems of at most ${mostUniqueItems}`,
    );
  }
  for (const [key, value] of Object.entries(schema)) refuseSlowKeywords(value, `${where}/${key}`);
}
