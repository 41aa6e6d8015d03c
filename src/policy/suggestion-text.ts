/** An addition to a policy as text in the file format, with the risk of each line above it. */
import { type Denial, DenialAggregate, type DenialSummary } from "./aggregate.ts";
import {
  suggest,
  type SuggestedBinary,
  type SuggestedEntry,
  type SuggestedItem,
  type SuggestedRule,
  type Suggestion,
} from "./suggest.ts";

/** What one instance has seen refused. */
export interface ObservedDenials {
  readonly denials: readonly DenialSummary[];
  readonly dropped: number;
}

/** Each refusal with what would allow it by itself. */
export function withSuggestions(
  summaries: readonly DenialSummary[],
  takenKeys: readonly string[],
): readonly (DenialSummary & { readonly suggestion: string })[] {
  return summaries.map((summary) => {
    return { ...summary, suggestion: suggestionText(suggest([summary], takenKeys)) };
  });
}

/**
 * What would allow the chosen refusals together, `HOST:PORT EXECUTABLE`, of those that instances have observed; undefined
 * where none of them is there.
 */
export function additionText(
  observed: readonly unknown[],
  takenKeys: readonly string[],
  chosen: ReadonlySet<string>,
): string | undefined {
  const denials = observed.flatMap((one) => (one as Partial<ObservedDenials>).denials ?? []);
  const wanted = denials.filter(({ host, port, binary }) =>
    chosen.has(`${host}:${port} ${binary}`),
  );
  return wanted.length === 0 ? undefined : suggestionText(suggest(wanted, takenKeys));
}

/** What would allow one message by itself. */
export function suggestionFor(denial: Denial, takenKeys: readonly string[]): string {
  const aggregate = new DenialAggregate({ maxSummaries: 1, maxSamples: 1 });
  aggregate.record(denial, 0);
  return suggestionText(suggest(aggregate.summaries(), takenKeys));
}

/** The suggestion as text in the file format, one risk note above each line that carries one. */
export function suggestionText(suggestion: Suggestion): string {
  const lines = ["network_policies:"];
  const added = suggestion.entries.filter(({ isNew }) => isNew);
  const changed = [
    ...suggestion.entries.flatMap(({ key, isNew }) => (isNew ? [] : [key])),
    ...suggestion.rules.map(({ entry }) => entry),
  ];
  for (const key of new Set(changed)) writeChanges(key, suggestion, lines);
  for (const entry of added) writeEntry(entry, lines);
  if (lines.length === 1) lines.length = 0;
  writeItems(suggestion.items, lines);
  if (lines.length === 0) lines.push("# nothing to add");
  for (const { host, port, reason } of suggestion.refused) {
    lines.push(`# not suggested: ${comment(`${host}:${port}: ${reason}`)}`);
  }
  return `${lines.join("\n")}\n`;
}

/** One item for each rule: methods and paths of one item are allowed in every combination. */
function writeItems(items: readonly SuggestedItem[], lines: string[]): void {
  if (items.length > 0) lines.push("allow:", "  # add to the list that is there");
  for (const { host, port, rules } of items) {
    for (const { method, path, risks } of rules) {
      note(risks, "  ", lines);
      lines.push(`  - host: ${quote(host)}`, `    port: ${port}`);
      lines.push(`    methods: [${quote(method)}]`, `    paths: [${quote(path)}]`);
    }
  }
}

/** Everything that one entry lacks stands under its key once: the text is YAML that programs can read. */
function writeChanges(key: string, suggestion: Suggestion, lines: string[]): void {
  lines.push(`  ${quote(key)}:`, "    # add to the entry that is there");
  const rules = suggestion.rules.filter(({ entry }) => entry === key);
  if (rules.length > 0) lines.push("    endpoints:");
  for (const { endpoint, rules: added } of rules) {
    lines.push(`      # ${endpoint}: add to its rules`, "      - rules:");
    writeRules(added, "          ", lines);
  }
  const own = suggestion.entries.filter((entry) => !entry.isNew && entry.key === key);
  writeBinaries(
    own.flatMap(({ binaries }) => binaries),
    lines,
  );
}

function writeEntry(entry: SuggestedEntry, lines: string[]): void {
  lines.push(`  ${quote(entry.key)}:`, "    endpoints:");
  for (const { host, port, risks, rules, hasEncodedSlash } of entry.endpoints) {
    note(risks, "      ", lines);
    lines.push(`      - host: ${quote(host)}`, `        port: ${port}`);
    if (rules.length === 0) continue;
    lines.push("        protocol: rest", "        enforcement: enforce");
    if (hasEncodedSlash === true) lines.push("        allow_encoded_slash: true");
    lines.push("        rules:");
    writeRules(rules, "          ", lines);
  }
  writeBinaries(entry.binaries, lines);
}

function writeBinaries(binaries: readonly SuggestedBinary[], lines: string[]): void {
  if (binaries.length > 0) lines.push("    binaries:");
  for (const { path, risks } of binaries) {
    note(risks, "      ", lines);
    lines.push(`      - path: ${quote(path)}`);
  }
}

function writeRules(rules: readonly SuggestedRule[], indent: string, lines: string[]): void {
  for (const { method, path, risks } of rules) {
    note(risks, indent, lines);
    lines.push(`${indent}- allow: { method: ${quote(method)}, path: ${quote(path)} }`);
  }
}

function note(risks: readonly string[], indent: string, lines: string[]): void {
  if (risks.length > 0) lines.push(`${indent}# risk: ${comment(risks.join("; "))}`);
}

/** YAML takes JSON strings as they are. A path is a client's word, and a terminal obeys more than what JSON escapes. */
function quote(text: string): string {
  return JSON.stringify(text).replaceAll(/[\u007f-\u{10ffff}]/gu, (character) => {
    const code = (character.codePointAt(0) ?? 0).toString(16);
    return code.length > 4 ? `\\U${code.padStart(8, "0")}` : `\\u${code.padStart(4, "0")}`;
  });
}

function comment(text: string): string {
  // What a client chose may not end the comment.
  return text.replaceAll(/[^\u0020-\u007e]/g, "?");
}
