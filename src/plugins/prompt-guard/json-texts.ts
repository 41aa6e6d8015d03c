/** The texts of a JSON value, with their places, and what of them can be written anew. */
import { isObject } from "../../http/json-access.ts";
import type { JsonPath, JsonReplacement } from "../../http/json-splice.ts";
import type { GuardJudge, JudgedText, Verdict } from "./judge.ts";
import type { Origin } from "./guard-rule.ts";

/** One text of a value. */
export interface JsonText {
  readonly text: string;
  /** Undefined for the name of a member, which stays as it is. */
  readonly path: JsonPath | undefined;
}

/** Members whose values are words and not identifiers, in every protocol. */
const prose: ReadonlySet<string | number> = new Set([
  "text",
  "description",
  "instructions",
  "message",
  "content",
  "summary",
  "data",
  "blob",
]);
const leastProse = 24;

/** Every string of the value and every name of a member that could hold words, in order. */
export function textsOf(value: unknown, path: JsonPath = []): JsonText[] {
  const found: JsonText[] = [];
  collect(value, path, found);
  return found;
}

function collect(value: unknown, path: JsonPath, found: JsonText[]): void {
  if (typeof value === "string") {
    if (value !== "") found.push({ text: value, path });
  } else if (Array.isArray(value)) {
    for (const [at, item] of value.entries()) collect(item, [...path, at], found);
  } else if (isObject(value)) {
    for (const [name, member] of Object.entries(value)) {
      if (/[^\x21-\x7e]|.{33}/.test(name)) found.push({ text: name, path: undefined });
      collect(member, [...path, name], found);
    }
  }
}

/** One text of all of them: what is torn apart is judged together, and no identifier stands in between. */
export function joined(texts: readonly JsonText[]): string {
  const words = texts.filter(({ text }) => /\s/.test(text));
  const others = texts.filter(({ text }) => !/\s/.test(text));
  return [...words, ...others].map(({ text }) => text).join("\n");
}

function isProse({ text, path }: JsonText): boolean {
  if (path === undefined) return false;
  return prose.has(path.at(-1) ?? "") || (text.length >= leastProse && /\s/.test(text));
}

/**
 * The replacements that mark or strip the texts of a unit; undefined where that leaves something that the rule catches:
 * identifiers stay as they are.
 */
export async function rewriteTexts(
  judge: GuardJudge,
  texts: readonly JsonText[],
  judged: { readonly origin: Origin; readonly verdict: Verdict },
): Promise<readonly JsonReplacement[] | undefined> {
  const { origin, verdict } = judged;
  const how: Omit<JudgedText, "text"> = { kind: "text", origin };
  const isStripping = verdict.action === "strip";
  const replacements: JsonReplacement[] = [];
  const rest: string[] = [];
  for (const one of texts) {
    const { text, path } = one;
    if (path === undefined || !(isStripping || isProse(one))) {
      rest.push(text);
      continue;
    }
    const written = await judge.rewrite(text, how, verdict);
    if (written === undefined) return undefined;
    if (isStripping) rest.push(written);
    if (written !== text) replacements.push({ path, json: JSON.stringify(written) });
  }
  return (await judge.isCaught(rest.join("\n"), verdict)) ? undefined : replacements;
}
