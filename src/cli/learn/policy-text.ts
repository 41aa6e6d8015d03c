/** Adds learned entries to the text of a policy file. What stands there stays, byte for byte. */
import {
  Document,
  isMap,
  isNode,
  isPair,
  isScalar,
  isSeq,
  parseDocument,
  type YAMLMap,
  type YAMLSeq,
} from "yaml";
import { messageOf, ProxyError } from "../../errors.ts";
import type { NotSuggested } from "../../policy/suggest.ts";
import type {
  Allowance,
  Learned,
  LearnedEndpoint,
  LearnedEntry,
  LearnedRule,
} from "./learned-entries.ts";

/** The whole text; that of the file where there is nothing to add. */
export function withLearned(text: string | undefined, { entries, refused }: Learned): string {
  if (text === undefined) return freshText(entries, refused);
  const insertions: Insertion[] = [];
  const added: LearnedEntry[] = [];
  const document = parseDocument(text);
  const policies = document.get("network_policies");
  for (const entry of entries) {
    const missing = entry.endpoints.filter((endpoint) => {
      const place = isMap(policies) ? placeOfRules(text, policies, entry, endpoint) : undefined;
      if (place === undefined) return true;
      const rules = new Document(rulesNode(endpoint.rules));
      insertions.push({ at: place.at, text: indented(shown(rules), place.indent) });
      return false;
    });
    if (missing.length > 0) added.push({ ...entry, endpoints: missing });
  }
  if (added.length > 0) insertions.push(insertionOf(added, text, document));
  return inserted(text, insertions);
}

/** Text that goes in at the beginning of a line. */
interface Insertion {
  readonly at: number;
  readonly text: string;
}

function freshText(entries: readonly LearnedEntry[], refused: readonly NotSuggested[]): string {
  const document = new Document({ version: 1, network_policies: {} });
  if (entries.length > 0) document.set("network_policies", entriesNode(entries));
  if (refused.length > 0) document.comment = refused.map(refusedNote).join("\n");
  return shown(document);
}

function shown(document: Document): string {
  return document.toString({ lineWidth: 0 });
}

/** Entries come after the last one that is there. */
function insertionOf(
  entries: readonly LearnedEntry[],
  text: string,
  document: Document,
): Insertion {
  const policies = document.get("network_policies");
  const body = shown(new Document(entriesNode(entries)));
  if (isMap(policies) && policies.items.length > 0) {
    const place = policies.flow === true ? undefined : placeAfter(text, policies, /^( *)$/);
    if (place !== undefined) return { at: place.at, text: indented(body, place.indent) };
  } else if (!document.has("network_policies")) {
    const gap = text === "" || text.endsWith("\n") ? "" : "\n";
    return { at: text.length, text: `${gap}network_policies:\n${indented(body, "  ")}` };
  }
  throw new ProxyError(
    "config.invalid",
    "network_policies is written in one line, or empty: write it as a block with an entry, or leave it out",
  );
}

function inserted(text: string, insertions: readonly Insertion[]): string {
  const isCrlf = text.includes("\r\n");
  let whole = text;
  // From the end, so that no place moves.
  for (const { at, text: own } of [...insertions].sort((one, other) => other.at - one.at)) {
    const before = whole.slice(0, at);
    const gap = before === "" || before.endsWith("\n") || own.startsWith("\n") ? "" : "\n";
    const words = `${gap}${own}`;
    whole = `${before}${isCrlf ? words.replaceAll("\n", "\r\n") : words}${whole.slice(at)}`;
  }
  return whole;
}

function indented(text: string, indent: string): string {
  return text.replaceAll(/^(?=.)/gm, indent);
}

interface PlaceOfItem {
  readonly at: number;
  readonly indent: string;
}

/** Where another item of a block goes, and how far it is indented; `lead` is what may stand before the first one. */
function placeAfter(text: string, block: YAMLMap | YAMLSeq, lead: RegExp): PlaceOfItem | undefined {
  const [first] = block.items;
  const last = block.items.at(-1);
  const start = startOf(first);
  const end = endOf(last);
  if (start === undefined || end === undefined) return undefined;
  const indent = lead.exec(text.slice(text.lastIndexOf("\n", start - 1) + 1, start))?.[1];
  if (indent === undefined) return undefined;
  // A comment at the end of the last line belongs to it.
  const isAtLine = text[end - 1] === "\n";
  const newline = text.indexOf("\n", end);
  return { indent, at: isAtLine ? end : newline === -1 ? text.length : newline + 1 };
}

function startOf(item: unknown): number | undefined {
  const node = isPair(item) ? item.key : item;
  return isNode(node) ? node.range?.[0] : undefined;
}

function endOf(item: unknown): number | undefined {
  const node = isPair(item) ? (item.value ?? item.key) : item;
  if ((isMap(node) || isSeq(node)) && node.flow !== true && node.items.length > 0)
    return endOf(node.items.at(-1));
  return isNode(node) ? node.range?.[1] : undefined;
}

/** One thing that no rule can allow. */
export function refusedNote({ host, port, reason }: NotSuggested): string {
  return ` not suggested: ${printable(`${host}:${port}: ${reason}`)}`;
}

/** The keys of the entries in a text. */
export function keysIn(text: string): readonly string[] {
  const policies = parseDocument(text).get("network_policies");
  return isMap(policies) ? policies.items.map(({ key }) => String(key)) : [];
}

/** The end of the rules of an endpoint that is there for the same executables. */
function placeOfRules(
  text: string,
  policies: YAMLMap,
  { binaries }: LearnedEntry,
  { host, port, settings, rules }: LearnedEndpoint,
): PlaceOfItem | undefined {
  const wanted = binaries
    .map(({ path }) => path)
    .sort()
    .join("\0");
  if (rules.length === 0) return undefined;
  for (const { value: entry } of policies.items) {
    if (!isMap(entry) || entry.has("callers") || binariesOf(entry) !== wanted) continue;
    const endpoints = entry.get("endpoints");
    for (const endpoint of isSeq(endpoints) ? endpoints.items : []) {
      if (!isMap(endpoint)) continue;
      const found = endpoint.get("rules");
      const isSame =
        String(endpoint.get("host")).toLowerCase() === host &&
        portsOf(endpoint) === String(port) &&
        endpoint.get("protocol") === settings["protocol"] &&
        endpoint.get("path") === settings["path"];
      if (isSame && isSeq(found) && found.flow !== true)
        return placeAfter(text, found, /^( *)- +$/);
    }
  }
  return undefined;
}

function binariesOf(entry: YAMLMap): string {
  const binaries = entry.get("binaries");
  const paths = (isSeq(binaries) ? binaries.items : []).map((one) =>
    isMap(one) ? String(one.get("path")) : "?",
  );
  return paths.sort().join("\0");
}

function portsOf(endpoint: YAMLMap): string {
  const ports = endpoint.get("ports");
  if (isSeq(ports)) return ports.items.map((one) => String(isScalar(one) ? one.value : one)).join();
  return String(endpoint.get("port"));
}

function entriesNode(entries: readonly LearnedEntry[]): YAMLMap {
  const policies = mapping({});
  for (const { key, endpoints, binaries } of entries) {
    const entry = mapping({});
    const places = sequence();
    for (const endpoint of endpoints) places.add(endpointNode(endpoint));
    entry.set("endpoints", places);
    const paths = sequence();
    for (const { path, risks } of binaries) {
      const notes = risks.length > 0 ? [`risk: ${risks.join("; ")}`] : [];
      paths.add(noted(mapping({ path }), notes));
    }
    if (binaries.length > 0) entry.set("binaries", paths);
    policies.set(key, entry);
  }
  return policies;
}

function endpointNode({ host, port, settings, rules, notes }: LearnedEndpoint): YAMLMap {
  const node = mapping({ host, port, ...settings });
  if (rules.length > 0) node.set("rules", rulesNode(rules));
  return noted(node, notes);
}

function rulesNode(rules: readonly LearnedRule[]): YAMLSeq {
  const list = sequence();
  for (const { allow, notes } of rules) {
    const node = mapping({ allow });
    if (!("schema" in allow)) (node.get("allow") as YAMLMap).flow = true;
    list.add(noted(node, notes));
  }
  return list;
}

/** Nodes belong to no document until they are shown. */
const maker = new Document();

function mapping(value: object): YAMLMap {
  const node = maker.createNode(value) as YAMLMap;
  node.flow = false;
  return node;
}

function sequence(): YAMLSeq {
  const node = maker.createNode([]) as YAMLSeq;
  node.flow = false;
  return node;
}

function noted(node: YAMLMap, notes: readonly string[]): YAMLMap {
  if (notes.length > 0) node.commentBefore = notes.map((note) => ` ${printable(note)}`).join("\n");
  return node;
}

/** What a client chose may neither end the comment nor steer a terminal. */
function printable(text: string): string {
  return text.replaceAll(/[^\u0020-\u007e]/g, "?");
}

/** The rule as one line, for a question about it. */
export function ruleLine(allow: Allowance): string {
  try {
    return printable(JSON.stringify(allow));
  } catch (error) {
    return messageOf(error);
  }
}
