/** Completion for bash. */
import { firstWords, identifier, type Listing, program, type Value, verbsOf } from "./listing.ts";

/** A script that bash reads: `eval "$(authbridge-proxy completion bash)"`. */
export function bashScript(listing: Listing): string {
  const words = firstWords(listing);
  const verbs = words
    .map((word) => [word, verbsOf(listing, word)] as const)
    .filter(([, all]) => all.length > 0);
  const options = [...listing].map(
    ([name, listed]) =>
      `    "${name}") options="${listed.options.map((one) => one.name).join(" ")}" ;;\n`,
  );
  const values = [...listing].flatMap(([name, listed]) =>
    listed.options.flatMap(({ name: option, value }) =>
      value === undefined ? [] : [`    "${name} ${option}") ${offer(value)}; return ;;\n`],
    ),
  );
  const behind = [...listing].flatMap(([name, { argument }]) =>
    argument === undefined ? [] : [`    "${name}") ${offer(argument)}; return ;;\n`],
  );
  return `# Completion of ${program} for bash: eval "$(${program} completion bash)"
_${identifier}() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}"
  local command="" word words="" options="" at
  COMPREPLY=()
  for ((at = 1; at < COMP_CWORD; at++)); do
    word="\${COMP_WORDS[at]}"
    [ "$word" = -- ] && { compopt -o default; return; }
    case "$word" in -*) break ;; esac
    command="\${command:+$command }$word"
  done
  case "$command $previous" in
${values.join("")}  esac
  case "$command" in
${options.join("")}  esac
  case "$current" in
    -*) ${choice("$options")}; return ;;
  esac
  case "$command" in
    "") words="${words.join(" ")}" ;;
${verbs.map(([word, all]) => `    "${word}") words="${all.join(" ")}" ;;\n`).join("")}${behind.join("")}    *) words="$options" ;;
  esac
  ${choice("$words")}
}
complete -F _${identifier} ${program}
`;
}

function offer(value: Value): string {
  if (value.kind === "words") return choice(value.words.join(" "));
  if (value.kind === "text") return "COMPREPLY=()";
  return 'compopt -o filenames; COMPREPLY=($(compgen -f -- "$current"))';
}

const choice = (words: string): string => `COMPREPLY=($(compgen -W "${words}" -- "$current"))`;
