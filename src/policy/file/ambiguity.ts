/** Overlapping endpoints that contradict each other: for some request no reading of the file is the right one. */
import type { Endpoint, Inspection, PolicyDocument, PolicyEntry } from "../endpoint.ts";
import { hostsOverlap } from "../host-syntax.ts";

/** Two endpoints that disagree; the message stands at `endpoint` and names the other. */
export interface Ambiguity {
  readonly endpoint: Endpoint;
  readonly message: string;
}

interface Placed {
  readonly endpoint: Endpoint;
  /** The agents that it is for; undefined is every agent. */
  readonly callers: PolicyEntry["callers"];
  readonly place: string;
  readonly ranges: string;
  readonly settings: Readonly<Record<string, string | number | boolean>> | undefined;
  /** Equal for endpoints that cannot disagree, whatever their hosts and paths. */
  readonly signature: string;
}

/** More are not looked for: the author has enough to do. */
const maxAmbiguities = 50;
/** Pairs that are compared before the search gives up with a refusal, so that loading stays fast. */
const maxPairs = 1_000_000;

/** Finds contradictions between endpoints whose hosts overlap and which share a port. */
export function findAmbiguities(document: PolicyDocument): readonly Ambiguity[] {
  const groups = new Map<string, Placed[]>();
  for (const entry of document.entries) {
    for (const endpoint of entry.endpoints) {
      const placed = place(endpoint, entry);
      const group = groups.get(endpoint.host);
      if (group === undefined) groups.set(endpoint.host, [placed]);
      else group.push(placed);
    }
  }
  const search = new Search();
  for (const group of groups.values()) compareWithin(group, search);
  compareAcross(groups, search);
  return search.found;
}

function place(endpoint: Endpoint, entry: PolicyEntry): Placed {
  const text = `'${entry.key}' ${endpoint.label}`;
  const ranges = endpoint.allowedIps?.ranges.map(String).sort().join(",") ?? "";
  const settings = endpoint.inspection === undefined ? undefined : settingsOf(endpoint.inspection);
  const signature = `${endpoint.tls === "skip"} ${ranges} ${endpoint.isTcp} ${JSON.stringify(settings)}`;
  return { endpoint, callers: entry.callers, place: text, ranges, settings, signature };
}

function settingsOf(inspection: Inspection): NonNullable<Placed["settings"]> {
  return {
    protocol: inspection.protocol,
    enforcement: inspection.enforcement,
    allow_encoded_slash: inspection.allowsEncodedSlash,
    allow_ambiguous_path: inspection.allowsAmbiguousPath,
    "body limit": inspection.bodyLimitBytes,
    strict_tool_names: inspection.strictToolNames,
  };
}

/** What was found, and how much more may be looked at. */
class Search {
  readonly found: Ambiguity[] = [];
  #pairs = 0;

  get isOver(): boolean {
    return this.found.length >= maxAmbiguities || this.#pairs > maxPairs;
  }

  /** Counts a comparison; false when there have been too many. */
  spend(one: Placed): boolean {
    this.#pairs += 1;
    if (this.#pairs === maxPairs + 1) {
      const message =
        "ambiguity validation failed: too many overlapping hosts and paths to compare";
      this.found.push({ endpoint: one.endpoint, message });
    }
    return !this.isOver;
  }

  compare(one: Placed, other: Placed): void {
    if (one.signature === other.signature || !this.spend(one)) return;
    const why = disagreement(one, other);
    if (why === undefined) return;
    const hosts =
      one.endpoint.host === other.endpoint.host ? "the same host" : "an overlapping host";
    this.found.push({
      endpoint: one.endpoint,
      message: `ambiguity validation failed: ${other.place} has ${hosts} and port but another ${why}`,
    });
  }
}

/** Compares endpoints of one host, those with equal signatures never with each other. */
function compareWithin(group: readonly Placed[], search: Search): void {
  const bySignature = bucket(group, (placed) => placed.signature);
  if (bySignature.size < 2) return;
  const buckets = [...bySignature.values()];
  for (const [index, bucketOne] of buckets.entries()) {
    for (const bucketTwo of buckets.slice(index + 1)) {
      for (const two of bucketTwo) {
        for (const one of bucketOne) {
          if (search.isOver) return;
          search.compare(two, one);
        }
      }
    }
  }
}

/** Compares hosts of which at least one is a pattern. */
function compareAcross(groups: ReadonlyMap<string, readonly Placed[]>, search: Search): void {
  const placed = [...groups.values()].flat();
  if (new Set(placed.map(({ signature }) => signature)).size < 2) return;
  if (![...groups.keys()].some((host) => host.includes("*"))) return;
  const bySuffix = new Map<string, string[]>();
  for (const host of groups.keys()) {
    for (const suffix of suffixesOf(host)) {
      const hosts = bySuffix.get(suffix);
      if (hosts === undefined) bySuffix.set(suffix, [host]);
      else hosts.push(host);
    }
  }
  for (const [pattern, group] of groups) {
    const [first] = group;
    if (!pattern.includes("*") || first === undefined) continue;
    const candidates = [fixedSuffix(pattern), ...openSuffixes(pattern)];
    for (const host of new Set(candidates.flatMap((key) => bySuffix.get(key) ?? []))) {
      // Of two patterns, the pair is looked at once.
      if (host === pattern || (host.includes("*") && host < pattern)) continue;
      if (search.isOver || !search.spend(first)) return;
      if (!hostsOverlap(pattern, host)) continue;
      for (const one of group) {
        for (const other of groups.get(host) ?? []) search.compare(one, other);
      }
    }
  }
}

function bucket<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const buckets = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const list = buckets.get(key);
    if (list === undefined) buckets.set(key, [item]);
    else list.push(item);
  }
  return buckets;
}

/** The labels after the last wildcard. */
function fixedSuffix(pattern: string): string {
  const labels = pattern.split(".");
  return labels.slice(labels.findLastIndex((label) => label.includes("*")) + 1).join(".");
}

/** Patterns whose fixed end is shorter than this one's, marked so that exact hosts are not among them. */
function openSuffixes(pattern: string): readonly string[] {
  const labels = fixedSuffix(pattern).split(".");
  return labels.map((_, index) => `*${labels.slice(index + 1).join(".")}`);
}

/** The keys under which a host is found: every suffix of it, and for patterns also their own fixed end. */
function suffixesOf(host: string): readonly string[] {
  const isPattern = host.includes("*");
  const labels = (isPattern ? fixedSuffix(host) : host).split(".");
  const keys = ["", ...labels.map((_, index) => labels.slice(index).join("."))];
  return isPattern ? [...new Set([...keys, `*${fixedSuffix(host)}`])] : [...new Set(keys)];
}

/** The first setting on which two endpoints that can meet disagree. */
function disagreement(one: Placed, other: Placed): string | undefined {
  const [left, right] = [one.endpoint, other.endpoint];
  if (!left.ports.some((port) => right.ports.includes(port))) return undefined;
  if (!shareCallers(one, other)) return undefined;
  if ((left.tls === "skip") !== (right.tls === "skip")) return "tls";
  if (one.ranges !== other.ranges) return "allowed_ips";
  if (left.isTcp !== right.isTcp) return "explicit tcp";
  const { settings } = one;
  if (settings === undefined || other.settings === undefined) return undefined;
  if (left.specificity !== right.specificity || !pathsMeet(left.path, right.path)) return undefined;
  const theirs = other.settings;
  return Object.keys(settings).find((key) => settings[key] !== theirs[key]);
}

/** False when each is for other agents: no request belongs to both. */
function shareCallers(one: Placed, other: Placed): boolean {
  const [mine, theirs] = [one.callers, other.callers];
  return mine === undefined || theirs === undefined || [...mine].some((name) => theirs.has(name));
}

/** False when no path can match both: their fixed beginnings differ. */
function pathsMeet(one: string, other: string): boolean {
  const [headA, headB] = [fixedHead(one), fixedHead(other)];
  if (headA === one && headB === other) return one === other;
  return headA.startsWith(headB) || headB.startsWith(headA);
}

function fixedHead(path: string): string {
  return path.slice(0, path.search(/[*?[{\\]|$/));
}
