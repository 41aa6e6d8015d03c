/** The kinds of options and arguments that a command can take, each with how it is read. */
import { parseDuration } from "../../duration.ts";
import { ProxyError } from "../../errors.ts";

/** One option (or several flags that stand for one choice), one argument, or the command after `--`. */
export interface Parameter<T> {
  /** As the help shows it: `--config FILE`, `--probe[=never]`, `--local, --sidecar`. */
  readonly written: string;
  readonly help: string;
  readonly kind: "flag" | "value" | "optional" | "argument" | "rest";
  /** The words of which it is one. */
  readonly words?: readonly string[];
  /** Of every time that it was given; of a flag its name. Throws a fault that says what is wrong. */
  read(this: void, texts: readonly string[]): T;
}

/** What a command takes, by the name under which the command gets it. */
export type Parameters = Readonly<Record<string, Parameter<unknown>>>;

type Read<P> = P extends Parameter<infer T> ? T : never;
type OptionalKey<P> = { [K in keyof P]: undefined extends Read<P[K]> ? K : never }[keyof P];

/** What a command gets; what was not given and has no default is absent. */
export type Values<P> = {
  readonly [K in Exclude<keyof P, OptionalKey<P>>]: Read<P[K]>;
} & { readonly [K in OptionalKey<P>]?: Exclude<Read<P[K]>, undefined> };

/** The names of the options in what the help shows. */
export function namesOf({ written }: Parameter<unknown>): readonly string[] {
  return written.match(/--[a-z-]+/g) ?? [];
}

/** Ends the reading of the command line. */
export function misuse(message: string): never {
  throw new ProxyError("config.invalid", message);
}

/** An option as it is written, two spaces, and its help. */
type Line = `--${string}  ${string}`;

/** On or off. */
export function flag(line: Line): Parameter<boolean> {
  return { ...parts(line), kind: "flag", read: (texts) => texts.length > 0 };
}

/** A flag that is absent where it was not given, as options are. */
export function sometimes(line: Line): Parameter<true | undefined> {
  return { ...flag(line), read: (texts) => (texts.length > 0 ? true : undefined) };
}

/** Several flags of which one is chosen; without one, the first. */
export function flags<const T extends string>(
  words: readonly [T, ...T[]],
  help: string,
): Parameter<T> {
  const written = words.map((word) => `--${word}`).join(", ");
  const read = ([one = words[0], ...others]: readonly string[]): T => {
    const other = others.find((name) => name !== one);
    return other === undefined ? (one as T) : misuse(`--${one} and --${other} exclude each other`);
  };
  return { written, help, kind: "flag", read };
}

/** Any text but the empty one: a path, a name, an address. Of several the last one counts. */
export function text(line: Line): Parameter<string | undefined> {
  return value(line, (given) => given);
}

/** A text that means something; the empty one never does. */
export function value<T>(
  line: Line,
  read: (given: string, name: string) => T,
): Parameter<T | undefined> {
  return {
    ...parts(line),
    kind: "value",
    read(texts) {
      const last = texts.at(-1);
      return last === undefined ? undefined : read(filled(last, line), nameIn(line));
    },
  };
}

function filled(given: string, line: Line): string {
  return given === "" ? misuse(`${nameIn(line)} must not be empty`) : given;
}

function nameIn(line: Line): string {
  return line.split(/[ []/)[0] ?? "";
}

/** An option that has to be given; `missing` says so. */
export function required<T>(parameter: Parameter<T | undefined>, missing: string): Parameter<T> {
  return { ...parameter, read: (texts) => parameter.read(texts) ?? misuse(missing) };
}

/** What is there when nothing was given. */
export function byDefault<T>(parameter: Parameter<T | undefined>, otherwise: T): Parameter<T> {
  return { ...parameter, read: (texts) => parameter.read(texts) ?? otherwise };
}

/** A count. */
export function whole(line: Line): Parameter<number | undefined> {
  return value(line, (given, name) =>
    /^\d{1,6}$/.test(given) ? Number(given) : misuse(`${name} must be a whole number`),
  );
}

/** One of a few words; `--name[=WORD]` may stand alone, which means the first. */
export function choice<const T extends string>(
  line: Line,
  words: readonly [T, ...T[]],
): Parameter<T | undefined> {
  const read = (given: string, name: string): T =>
    words.find((word) => word === given) ?? misuse(`${name} must be one of ${words.join(", ")}`);
  const one = { ...value(line, read), words };
  if (!one.written.includes("[=")) return one;
  return { ...one, kind: "optional", read: (texts) => one.read(texts.map((it) => it || words[0])) };
}

const maxDurationMs = 24 * 3_600_000;

/** Milliseconds. */
export function duration(line: Line): Parameter<number | undefined> {
  return value(line, (given, name) => {
    const ms = parseDuration(given);
    return ms === undefined || ms <= 0 || ms > maxDurationMs
      ? misuse(`${name} must be a duration such as "30s" or "5m", at most 24h`)
      : ms;
  });
}

/** An option that may be given again; each is read by itself. */
export function repeated<T>(
  line: Line,
  read: (text: string) => T,
): Parameter<readonly T[] | undefined> {
  const all = (texts: readonly string[]): readonly T[] =>
    texts.map((given) => read(filled(given, line)));
  return { ...text(line), read: (texts) => (texts.length > 0 ? all(texts) : undefined) };
}

/** Everything that is given without a name, and at least one thing. */
export function files(missing: string): Parameter<readonly string[]> {
  return bare("argument", (texts) =>
    texts.length === 0 || texts.includes("") ? misuse(missing) : texts,
  );
}

/** Everything that is given without a name; there may be nothing. */
export const optionalWords = bare("argument", (texts) => (texts.length > 0 ? texts : undefined));

/** One thing that is given without a name. */
export function argument(missing: string): Parameter<string> {
  return bare("argument", ([one, extra]) =>
    extra === undefined ? one || misuse(missing) : misuse(`unexpected argument "${extra}"`),
  );
}

/** One of a few words that is given without a name. */
export function word<const T extends string>(
  words: readonly [T, ...T[]],
  missing: string,
): Parameter<T> {
  const one = argument(missing);
  const read = (texts: readonly string[]): T => {
    const given = one.read(texts);
    return words.find((it) => it === given) ?? misuse(`${missing}, not ${given}`);
  };
  return { ...one, words, read };
}

/** The command after `--`. */
export const rest = bare("rest", (texts) =>
  texts[0] === "" ? misuse("the command after -- must not be empty") : texts,
);

function bare<T>(kind: "argument" | "rest", read: Parameter<T>["read"]): Parameter<T> {
  return { written: "", help: "", kind, read };
}

function parts(line: Line): { readonly written: string; readonly help: string } {
  const [written = "", help = ""] = line.split("  ");
  return { written, help };
}
