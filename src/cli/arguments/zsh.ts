/** Completion for zsh. */
import {
  doesOf,
  firstWords,
  identifier,
  type Listing,
  program,
  type Value,
  verbsOf,
} from "./listing.ts";

/** A script that zsh reads: `source <(authbridge-proxy completion zsh)`, after compinit. */
export function zshScript(listing: Listing): string {
  const words = firstWords(listing);
  const named = words.flatMap((word) => {
    const verbs = verbsOf(listing, word);
    if (verbs.length === 0) return [];
    const lines = verbs.map((verb) => described(verb, doesOf(listing, `${word} ${verb}`)));
    return [`    ${quoted(word)}) named=(${lines.join(" ")}) ;;\n`];
  });
  const options = [...listing].map(([name, listed]) => {
    const lines = listed.options.map((one) => described(one.name, one.help));
    return `    ${quoted(name)}) options=(${lines.join(" ")}) ;;\n`;
  });
  const values = [...listing].flatMap(([name, listed]) =>
    listed.options.flatMap(({ name: option, value }) =>
      value === undefined
        ? []
        : [`    ${quoted(`${name} ${option}`)}) ${offer(value)}; return ;;\n`],
    ),
  );
  const behind = [...listing].flatMap(([name, { argument }]) =>
    argument === undefined ? [] : [`    ${quoted(name)}) ${offer(argument)}; return ;;\n`],
  );
  return `#compdef ${program}
# Completion of ${program} for zsh: source <(${program} completion zsh), after compinit.
_${identifier}() {
  local command="" word at
  local -a named options
  for ((at = 2; at < CURRENT; at++)); do
    word="\${words[at]}"
    [[ "$word" == -- ]] && { _normal; return }
    [[ "$word" == -* ]] && break
    command="\${command:+$command }$word"
  done
  case "$command \${words[CURRENT-1]}" in
${values.join("")}  esac
  case "$command" in
${options.join("")}  esac
  if [[ "\${words[CURRENT]}" == -* ]]; then
    _describe option options
    return
  fi
  case "$command" in
    '') named=(${words.map((word) => described(word, doesOf(listing, word))).join(" ")}) ;;
${named.join("")}${behind.join("")}  esac
  if (( \${#named} )); then _describe command named; else _describe option options; fi
}
compdef _${identifier} ${program}
`;
}

function offer(value: Value): string {
  if (value.kind === "words") return `compadd -- ${value.words.join(" ")}`;
  return value.kind === "path" ? "_files" : "_message value";
}

/** A word and what it means, as `_describe` takes them. */
const described = (word: string, does: string): string =>
  quoted(`${word.replaceAll(":", String.raw`\:`)}:${does}`);

const quoted = (text: string): string => `'${text.replaceAll("'", String.raw`'\''`)}'`;
