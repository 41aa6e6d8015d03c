/** Completion for fish. */
import { doesOf, firstWords, type Listing, program, type Value, verbsOf } from "./listing.ts";

const first = "__fish_use_subcommand";

/** A script that fish reads: `authbridge-proxy completion fish | source`. */
export function fishScript(listing: Listing): string {
  const words = firstWords(listing).flatMap((word) => [
    complete(first, `-a ${word}`, doesOf(listing, word)),
    ...verbsOf(listing, word).map((verb) =>
      complete(seen(word), `-a ${verb}`, doesOf(listing, `${word} ${verb}`)),
    ),
  ]);
  const behind = [...listing].flatMap(([name, { options, argument }]) => {
    const when = name === "" ? first : seen(name);
    return [
      ...options.map((one) =>
        complete(when, `-l ${one.name.slice(2)}${taken(one.value)}`, one.help),
      ),
      ...(argument === undefined ? [] : [complete(when, argumentOf(argument), "")]),
    ];
  });
  return `# Completion of ${program} for fish: ${program} completion fish | source
complete -c ${program} -f
${[...words, ...behind].join("\n")}
`;
}

function complete(when: string, what: string, does: string): string {
  const meaning = does === "" ? "" : ` -d ${quoted(does)}`;
  return `complete -c ${program} -n ${quoted(when)} ${what}${meaning}`;
}

function seen(words: string): string {
  const each = words.split(" ").map((word) => `__fish_seen_subcommand_from ${word}`);
  return each.join("; and ");
}

function taken(value: Value | undefined): string {
  if (value === undefined) return "";
  if (value.kind === "words") return ` -x -a ${quoted(value.words.join(" "))}`;
  return value.kind === "path" ? " -r -F" : " -x";
}

function argumentOf(value: Value): string {
  return value.kind === "words" ? `-a ${quoted(value.words.join(" "))}` : "-F";
}

const quoted = (text: string): string =>
  `'${text.replaceAll("\\", String.raw`\\`).replaceAll("'", String.raw`\'`)}'`;
