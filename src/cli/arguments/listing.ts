/** The table of commands as a shell sees it: words, and the options behind them. */
import type { Command } from "./command.ts";
import { namesOf, type Parameter } from "./parameter.ts";

/** The program's name. */
export const program = "authbridge-proxy";
/** The same as a function of a shell may be called. */
export const identifier = program.replaceAll("-", "_");

/** One row of the table. */
export type NamedCommand = Command & { readonly name: string };

/** What an option takes, or what stands behind the words of a command. */
export type Value =
  | { readonly kind: "words"; readonly words: readonly string[] }
  | { readonly kind: "path" }
  | { readonly kind: "text" };

/** One option; a flag takes no value. */
export interface Option {
  readonly name: string;
  readonly value: Value | undefined;
  readonly help: string;
}

/** What may follow the words of a command. */
export interface Listed {
  readonly options: readonly Option[];
  readonly argument: Value | undefined;
  readonly does: string;
}

/** By the words that ask for it, the empty text for a start; rows with the same words are together. */
export type Listing = ReadonlyMap<string, Listed>;

/** Makes the listing. */
export function listingOf(rows: readonly NamedCommand[]): Listing {
  const listing = new Map<string, Listed>();
  for (const [index, row] of rows.entries()) {
    const isFlag = row.name.startsWith("--");
    const words = isFlag || index === 0 ? "" : row.name;
    const does = firstLine(Object.values(row.usage)[0] ?? "");
    const before = listing.get(words);
    const own = [
      ...(before?.options ?? [{ name: "--help", value: undefined, help: "what there is" }]),
      ...(isFlag ? [{ name: row.name, value: undefined, help: does }] : []),
      ...optionsOf(row),
    ];
    const argument = Object.values(row.parameters).find(({ kind }) => kind === "argument");
    listing.set(words, {
      options: own.filter(({ name }, at) => own.findIndex((one) => one.name === name) === at),
      argument: before?.argument ?? (argument && wordsOrPath(argument)),
      does: before?.does ?? does,
    });
  }
  return listing;
}

/** The first words of all commands. */
export function firstWords(listing: Listing): readonly string[] {
  const words = [...listing.keys()].map((one) => one.split(" ")[0] ?? "");
  return [...new Set(words)].filter((word) => word !== "");
}

/** The second words behind a first one. */
export function verbsOf(listing: Listing, word: string): readonly string[] {
  const behind = [...listing.keys()].filter((words) => words.startsWith(`${word} `));
  return behind.map((words) => words.slice(word.length + 1));
}

/** What the command of these words does, or the first command that begins with them. */
export function doesOf(listing: Listing, words: string): string {
  const first = [...listing].find(([one]) => one === words || one.startsWith(`${words} `));
  return first?.[1].does ?? "";
}

function optionsOf({ parameters }: Command): readonly Option[] {
  return Object.values(parameters).flatMap((one) =>
    namesOf(one).map((name) => ({ name, value: valueOf(one), help: firstLine(one.help) })),
  );
}

function valueOf({ kind, written, words }: Parameter<unknown>): Value | undefined {
  if (kind === "flag" || kind === "optional") return undefined;
  if (words !== undefined) return { kind: "words", words };
  const isPath = /\b(?:FILE|DIR|DENIALS)\b|-file |--(?:binary|ancestor) /.test(written);
  return { kind: isPath ? "path" : "text" };
}

function wordsOrPath({ words }: Parameter<unknown>): Value {
  return words === undefined ? { kind: "path" } : { kind: "words", words };
}

const firstLine = (text: string): string => text.split("\n")[0] ?? "";
