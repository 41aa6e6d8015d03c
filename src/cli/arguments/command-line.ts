/** Reads a command line by the table of commands. */
import { nearestKey } from "../../yaml/problem.ts";
import { messageOf } from "../../errors.ts";
import { type Row, rows } from "./commands.ts";
import { misuse, namesOf } from "./parameter.ts";

/** One parsed command line: a command with its values, or why there is none. */
export type Asked =
  | { readonly kind: "help" }
  | { readonly kind: "usage-error"; readonly message: string }
  | ({ readonly kind: Row["kind"] } & Readonly<Record<string, unknown>>);

/** What was written, before it is known what is asked for. */
interface Written {
  readonly words: readonly string[];
  /** Texts by the name of their option, a flag's own name for a flag. */
  readonly options: ReadonlyMap<string, readonly string[]>;
  /** The command after `--`. */
  readonly rest: readonly string[] | undefined;
}

const kinds: ReadonlyMap<string, string> = new Map([
  ["--help", "flag"],
  ...rows.map(({ name }) => [name, "flag"] as const),
  ...rows
    .flatMap(({ parameters }) => Object.values(parameters))
    .flatMap((one) => namesOf(one).map((name) => [name, one.kind] as const)),
]);

/** The options of a command, with the flag that may be its name. */
function optionsOf({ name, parameters }: Row): readonly string[] {
  const own = Object.values(parameters).flatMap(namesOf);
  return name.startsWith("--") ? [name, ...own] : own;
}

/** Never throws. */
export function parseCommand(argv: readonly string[]): Asked {
  try {
    const written = readWritten(argv);
    for (const kind of ["help", "version"] as const)
      if (written.options.has(`--${kind}`)) return { kind };
    const row = commandOf(written);
    return { kind: row.kind, ...valuesOf(row, written) };
  } catch (error) {
    return { kind: "usage-error", message: messageOf(error) };
  }
}

function readWritten(argv: readonly string[]): Written {
  const end = argv.includes("--") ? argv.indexOf("--") : argv.length;
  const words: string[] = [];
  const options = new Map<string, string[]>();
  for (let at = 0; at < end; at++) {
    const arg = argv[at] ?? "";
    // One dash as well as two, as flags of Go programs are written.
    const [, bare, given] = /^--?([^=]+)(?:=(.*))?$/s.exec(arg) ?? [];
    if (bare === undefined) {
      words.push(arg);
      continue;
    }
    const name = bare === "h" ? "--help" : `--${bare}`;
    const kind = kinds.get(name) ?? misuse(unknownOption(bare, words));
    let text = given;
    if (kind === "flag") {
      if (text === "false") continue;
      if (text !== undefined && text !== "true") misuse(`${name} takes no value`);
      text = bare;
    } else if (kind === "value" && text === undefined) {
      at++;
      text = at < end ? argv[at] : undefined;
      if (text === undefined || /^-./.test(text))
        misuse(`${name} needs a value; one that begins with - is written as ${name}=VALUE`);
    }
    options.set(name, [...(options.get(name) ?? []), text ?? ""]);
  }
  return { words, options, rest: end === argv.length ? undefined : argv.slice(end + 1) };
}

function unknownOption(bare: string, [word]: readonly string[]): string {
  const meant = rows.filter(({ name }) =>
    word === undefined ? name === "run" || name.startsWith("--") : name.split(" ")[0] === word,
  );
  const nearest = nearestKey(`--${bare}`, meant.flatMap(optionsOf));
  return `unknown option --${bare}${hint(nearest)}`;
}

function hint(meant: string | undefined): string {
  return meant === undefined ? "" : ` (did you mean ${meant}?)`;
}

function commandOf({ words, options, rest }: Written): Row {
  const [word = "run", verb] = words;
  const byFlag = rows.find(({ name }) => options.has(name));
  if (byFlag !== undefined && words.length > 0) misuse(`${byFlag.name} does not belong to ${word}`);
  const named = rows.filter(({ name }) => name === word || name === `${word} ${verb}`);
  const asked = byFlag === undefined ? named : [byFlag];
  if (asked.length === 0) misuse(unknownCommand(word));
  const takers = asked.filter(({ parameters }) => "command" in parameters);
  const found = rest === undefined ? asked[0] : takers.find(() => words.length > 0);
  return found ?? misuse("only run and doctor run a command after --");
}

function unknownCommand(word: string): string {
  const flags = ["--help", ...rows.map(({ name }) => name)].filter((name) => name.startsWith("--"));
  const meant = flags.find((name) => name === `--${word}`);
  if (meant !== undefined) return `unknown command "${word}"${hint(meant)}`;
  const names = rows.map(({ name }) => name).filter((name) => !name.startsWith("--"));
  const verbs = names.filter((name) => name.startsWith(`${word} `));
  return verbs.length > 0
    ? `${word} needs ${verbs.map((name) => name.slice(word.length + 1)).join(" or ")}`
    : `unknown command "${word}"${hint(nearestKey(word, names))}`;
}

function valuesOf(row: Row, { words, options, rest }: Written): Record<string, unknown> {
  const { name, parameters } = row;
  const given = words.slice(name.split(" ").length);
  const own = optionsOf(row);
  const takesArguments = Object.values(parameters).some(({ kind }) => kind === "argument");
  if (given[0] !== undefined && !takesArguments) misuse(`unexpected argument "${given[0]}"`);
  for (const option of options.keys()) if (!own.includes(option)) misuse(foreign(option, row));
  const values: Record<string, unknown> = {};
  for (const [key, parameter] of Object.entries(parameters)) {
    const written = namesOf(parameter).flatMap((option) => options.get(option) ?? []);
    const bare: Readonly<Record<string, readonly string[] | undefined>> = { argument: given, rest };
    const value = parameter.read(bare[parameter.kind] ?? written);
    if (value !== undefined) values[key] = value;
  }
  const objection = row.objection?.(values);
  return objection === undefined ? values : misuse(objection);
}

function foreign(option: string, { name, title = name, foreign }: Row): string {
  const owner = rows.find((row) => row.name.startsWith("--") && optionsOf(row).includes(option));
  if (owner !== undefined) return `${option} is used with ${owner.name} only`;
  return foreign?.[option] ?? `${option} does not belong to ${title}`;
}
