/** From observed refusals to the smallest addition to a policy that would allow them, with the risk of each line. */
import { classifyAddress, isMetadataName, parseAddress } from "../net/address.ts";
import type { DenialSummary, RequestSample } from "./aggregate.ts";
import { unresolvedBinary } from "./binary-matcher.ts";
import { hostRisks } from "./host-risks.ts";
import { isIdentifier } from "./identifier.ts";
import { quoteGlob } from "../pattern/glob.ts";

/** A rule that would allow one kind of request. */
export interface SuggestedRule {
  readonly method: string;
  readonly path: string;
  /** Paths that were asked for, where the pattern stands for more. */
  readonly seen: readonly string[];
  readonly risks: readonly string[];
}

/** An endpoint to add; without rules it opens the host whole. */
export interface SuggestedEndpoint {
  readonly host: string;
  readonly port: number;
  readonly rules: readonly SuggestedRule[];
  /** Paths have `%2F` as data, which an endpoint has to say. */
  readonly hasEncodedSlash?: true;
  readonly risks: readonly string[];
}

/** An executable to add. */
export interface SuggestedBinary {
  readonly path: string;
  readonly risks: readonly string[];
}

/** Lines to add under one key of `network_policies`; `isNew` when the key is not there yet. */
export interface SuggestedEntry {
  readonly key: string;
  readonly isNew: boolean;
  readonly endpoints: readonly SuggestedEndpoint[];
  readonly binaries: readonly SuggestedBinary[];
}

/** Lines to add to the rules of an endpoint that is there already. */
export interface SuggestedRules {
  readonly entry: string;
  /** Place of the endpoint within the entry, e.g. `endpoints[0]`. */
  readonly endpoint: string;
  readonly rules: readonly SuggestedRule[];
}

/** An item to add to `allow`: the host is on the list, with other requests. */
export interface SuggestedItem {
  readonly host: string;
  readonly port: number;
  readonly rules: readonly SuggestedRule[];
}

/** What an addition cannot allow, and why. */
export interface NotSuggested {
  readonly host: string;
  readonly port: number;
  readonly reason: string;
}

/** The smallest addition. */
export interface Suggestion {
  readonly entries: readonly SuggestedEntry[];
  readonly rules: readonly SuggestedRules[];
  readonly items: readonly SuggestedItem[];
  readonly refused: readonly NotSuggested[];
}

const usualPorts = new Set([80, 443, 8080, 8443]);
const launchers =
  /\/(?:ba|da|z|fi|k|c|tc)?sh$|\/(?:python|node|deno|bun|ruby|perl|php|java|busybox|env|npx|uv)[\d.]*$/;
const safeMethods = new Set(["GET", "HEAD", "OPTIONS"]);

/** Makes the addition; deterministic, whatever the order of the summaries. */
export function suggest(
  summaries: readonly DenialSummary[],
  takenKeys: Iterable<string> = [],
): Suggestion {
  const sorted = [...summaries].sort((one, other) => (keyOf(one) < keyOf(other) ? -1 : 1));
  const refused: NotSuggested[] = [];
  const open: DenialSummary[] = [];
  const admitted = new Map<string, Map<string, SuggestedBinary>>();
  const rules = new Map<string, SuggestedRules>();
  const listed = new Map<string, SuggestedItem>();
  for (const summary of sorted) {
    const objection = objectionTo(summary);
    if (objection !== undefined) {
      refused.push({ host: summary.host, port: summary.port, reason: objection });
    } else if (summary.code === "binary-not-allowed" && summary.entry !== undefined) {
      // One entry is enough, and it exists: only the executable is missing from it.
      const binaries = admitted.get(summary.entry) ?? new Map<string, SuggestedBinary>();
      admitted.set(summary.entry, binaries.set(summary.binary, binaryOf(summary.binary)));
    } else if (summary.samples.length === 0 && isUnnamed(summary)) {
      open.push(summary);
    } else {
      const samples = summary.samples.filter(isUnnamed);
      if (samples.length > 0) open.push({ ...summary, samples });
      const others = summary.samples.filter((sample) => !isUnnamed(sample));
      collectItem({ ...summary, samples: others.filter(isListed) }, listed);
      collectRules({ ...summary, samples: others.filter((one) => !isListed(one)) }, rules, refused);
      if (summary.samples.length > 0) continue;
      const reason = `refused with ${summary.code}, no request was recorded`;
      refused.push({ host: summary.host, port: summary.port, reason });
    }
  }
  const taken = new Set(takenKeys);
  const added = [...admitted].map(([key, binaries]) => ({
    key,
    isNew: false,
    endpoints: [],
    binaries: [...binaries.values()],
  }));
  return {
    entries: [...added, ...newEntries(open, taken)],
    rules: [...rules.values()],
    items: [...listed.values()],
    refused,
  };
}

type Refused = Pick<RequestSample, "code" | "entry" | "rule">;

/** Whether nothing in the policy names the host. A request to a host that is on no list is refused as a request. */
function isUnnamed({ code, entry, rule }: Refused): boolean {
  if (code === "endpoint-not-allowed" || code === "empty-policy") return true;
  return code === "not-permitted" && entry === undefined && rule === undefined;
}

/** Whether the list has an item for the host that does not go so far; an entry would take the place of all its items. */
function isListed({ code, entry, rule }: Refused): boolean {
  return code === "not-permitted" && entry === undefined && rule !== undefined;
}

function collectItem(
  { host, port, samples }: DenialSummary,
  found: Map<string, SuggestedItem>,
): void {
  if (samples.length === 0) return;
  const key = `${host}:${port}`;
  const known = found.get(key)?.rules ?? [];
  found.set(key, { host, port, rules: merged([...known, ...rulesOf(samples)]) });
}

function keyOf({ host, port, binary }: DenialSummary): string {
  return `${host}\0${port}\0${binary}`;
}

/** Why nothing that a policy can say would help, or should. */
function objectionTo({ host, code, binary, entry }: DenialSummary): string | undefined {
  const address = parseAddress(host);
  const kind = address === undefined ? undefined : classifyAddress(address);
  if (isMetadataName(host) || kind === "metadata")
    return "cloud metadata services are never opened";
  if (host === "localhost" || host.endsWith(".localhost")) return "loopback is never opened";
  if (kind !== undefined && kind !== "public" && kind !== "private") {
    return `${kind} addresses are never opened`;
  }
  if (code === "binary-not-allowed" && binary === unresolvedBinary) {
    return `the caller was not identified; entry '${entry ?? ""}' admits it only without binaries`;
  }
  if (code === "identity-unresolved")
    return "the caller was not identified (unresolved_identity: deny)";
  if (code === "malformed") return "the request was malformed";
  if (code === "ambiguous-path") return "servers read the path in more than one way";
  return undefined;
}

function binaryOf(path: string): SuggestedBinary {
  const risks = ["every process that it starts may go there as well"];
  if (launchers.test(path)) risks.unshift("runs whatever program it is given");
  if (/^\/(?:tmp|home|var\/tmp|dev\/shm)\//.test(path)) {
    risks.unshift("lies in a folder that the agent may be able to write to");
  }
  return { path: path.includes("*") ? quoteGlob(path) : path, risks };
}

/** Endpoints that the same executables need share an entry. */
function newEntries(open: readonly DenialSummary[], taken: Set<string>): readonly SuggestedEntry[] {
  const places = new Map<string, DenialSummary[]>();
  for (const summary of open) {
    const place = `${summary.host}:${summary.port}`;
    places.set(place, [...(places.get(place) ?? []), summary]);
  }
  const groups = new Map<string, { paths: readonly string[]; endpoints: SuggestedEndpoint[] }>();
  for (const summaries of places.values()) {
    const paths = [...new Set(summaries.map(({ binary }) => binary))];
    // Who cannot be named is let in by an entry without binaries, and that lets in everybody.
    const named = paths.includes(unresolvedBinary) ? [] : paths;
    const group = groups.get(named.join("\0")) ?? { paths: named, endpoints: [] };
    groups.set(named.join("\0"), group);
    group.endpoints.push(endpointOf(summaries, named.length === 0));
  }
  return [...groups.values()].map(({ paths, endpoints }) => ({
    key: freeKey(endpoints, taken),
    isNew: true,
    endpoints,
    binaries: paths.map(binaryOf),
  }));
}

/** A key that no entry has; it is taken from now on. */
export function freeKey(
  [first]: readonly Pick<SuggestedEndpoint, "host" | "port">[],
  taken: Set<string>,
): string {
  const base = `allow_${first?.host.replaceAll(/[^a-z0-9]/g, "_") ?? ""}_${first?.port ?? 0}`;
  let key = base;
  for (let number = 2; taken.has(key); number += 1) key = `${base}_${number}`;
  taken.add(key);
  return key;
}

function endpointOf(summaries: readonly DenialSummary[], isForAll: boolean): SuggestedEndpoint {
  const [first] = summaries;
  const { host = "", port = 0 } = first ?? {};
  const samples = summaries.flatMap((summary) => summary.samples);
  // Where one of the refusals was of a bare connection, rules about requests would not let it pass.
  const isJudged = summaries.every((summary) => summary.samples.length > 0);
  const hasEncodedSlash = samples.some(({ path }) => /%2f/i.test(path));
  const rules = isJudged ? rulesOf(samples) : [];
  const risks = placeRisks(host, port);
  if (!isJudged) risks.push("every method and path of the host, as no single request was seen");
  if (isForAll) risks.push("no binaries: every process may go there");
  return { host, port, risks, rules, ...(hasEncodedSlash ? { hasEncodedSlash } : {}) };
}

/** What speaks against a host and port by themselves. */
export function placeRisks(host: string, port: number): string[] {
  const risks: string[] = [];
  const address = parseAddress(host);
  if (address !== undefined) {
    const isPrivate = classifyAddress(address) === "private";
    risks.push(
      isPrivate ? "a private address" : "an address instead of a name: nobody owns it for long",
    );
  }
  if (!usualPorts.has(port)) risks.push(`port ${port} is unusual for HTTP`);
  if (port === 80) risks.push("clear text: anybody on the way can read and change it");
  if (address === undefined) risks.push(...hostRisks(host));
  return risks;
}

/** One rule for each method and shape of path. */
function rulesOf(samples: readonly RequestSample[]): readonly SuggestedRule[] {
  return merged(samples.map(({ method, path }) => ruleOf(method.toUpperCase(), path)));
}

function merged(rules: readonly SuggestedRule[]): readonly SuggestedRule[] {
  const known = new Map<string, SuggestedRule>();
  for (const rule of rules) {
    const key = `${rule.path} ${rule.method}`;
    const seen = [...new Set([...(known.get(key)?.seen ?? []), ...rule.seen])];
    known.set(key, { ...rule, seen });
  }
  return [...known].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, rule]) => rule);
}

/** A path in which what names one thing among many is any. */
export function generalPath(path: string): string {
  return path
    .split("/")
    .map((segment) => (isIdentifier(segment) ? "*" : quoteGlob(segment)))
    .join("/");
}

function ruleOf(method: string, path: string): SuggestedRule {
  const pattern = generalPath(path);
  const risks = safeMethods.has(method)
    ? ["reading can also carry data out, in the path and query"]
    : [`${method} sends data out and can change what is there`];
  const isGeneral = pattern.split("/").includes("*");
  if (isGeneral) risks.push("'*' stands for any identifier, not only for those seen");
  return { method, path: pattern, risks, seen: isGeneral ? [path] : [] };
}

/** Requests that an endpoint's rules left out become rules of that endpoint; those that it denies do not. */
function collectRules(
  summary: DenialSummary,
  found: Map<string, SuggestedRules>,
  refused: NotSuggested[],
): void {
  const { host, port } = summary;
  for (const { code, entry, rule, method, path, protocol = "rest" } of summary.samples) {
    const what = `${method} ${path}`;
    const isHttp = protocol === "rest" || protocol === "websocket";
    if (code === "not-permitted" && entry !== undefined && rule !== undefined && isHttp) {
      const endpoint = rule.split(".")[0] ?? rule;
      const key = `${entry}\0${endpoint}`;
      const added = ruleOf(method.toUpperCase(), path);
      const rules = found.get(key)?.rules ?? [];
      const isThere = rules.some((one) => one.method === added.method && one.path === added.path);
      found.set(key, { entry, endpoint, rules: isThere ? rules : [...rules, added] });
    } else refused.push({ host, port, reason: `${what} ${whyNot(code, protocol, entry, rule)}` });
  }
}

function whyNot(code: string, protocol: string, entry = "", rule = ""): string {
  if (code === "deny-rule") return `is refused by ${entry} ${rule}: no addition beats a deny rule`;
  if (code === "not-permitted")
    return `needs a rule for a ${protocol} operation in ${entry} ${rule}`;
  return `was refused with ${code}: no addition changes that`;
}
