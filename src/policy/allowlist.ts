/**
 * A list of destinations for those who want hosts and little else: what is not on it is refused.
 *
 * An item is a host, `host:port`, or `{host, port(s), methods, paths}`; hosts and paths are patterns as in policy
 * files. Items of `deny` beat items of `allow`.
 */
import { readCallers } from "./callers.ts";
import type { Grant, PolicyDecision } from "./decision.ts";
import { type Glob, GlobTable } from "./glob.ts";
import { HostIndex } from "./host-index.ts";
import { parseHostSyntax } from "./host-syntax.ts";
import { Node } from "./node.ts";
import { type Locate, type Problem, Problems } from "./problem.ts";
import type { ConnectFacts, RequestFacts } from "./request-facts.ts";
import { websocketText } from "./rule.ts";
import { readGlob } from "./rule-reader.ts";

/** One item of a list. */
interface Item {
  /** Place in the configuration, e.g. `allow[2]`. */
  readonly label: string;
  readonly host: string;
  /** Empty: every port. */
  readonly ports: readonly number[];
  /** Upper case; empty: every method. */
  readonly methods: readonly string[];
  /** Empty: every path. */
  readonly paths: readonly Glob[];
  /** Authenticated names of the agents that the item is about; undefined: every agent. */
  readonly callers: ReadonlySet<string> | undefined;
}

/** The two lists as they stand in a configuration; an absent list is an empty one. */
export interface AllowlistSource {
  readonly allow?: unknown;
  readonly deny?: unknown;
  /** Whoever names GET means HEAD too (RFC 9110 section 9.3.2); true when absent. */
  readonly headMatchesGet?: boolean;
  readonly locate?: Locate;
}

/** The list, or why there is none. */
export interface AllowlistResult {
  readonly allowlist: Allowlist | undefined;
  readonly problems: readonly Problem[];
}

/** Reads both lists; every problem at once, never throws. */
export function readAllowlist(source: AllowlistSource): AllowlistResult {
  const problems = new Problems(source.locate);
  const globs = new GlobTable();
  const read = (key: "allow" | "deny"): readonly Item[] => {
    const value = source[key];
    if (value === undefined) return [];
    const items = new Node(value, [key], problems).items();
    return items.flatMap((item, index) => readItem(item, `${key}[${index}]`, globs) ?? []);
  };
  const [allow, deny] = [read("allow"), read("deny")];
  const { headMatchesGet = true } = source;
  const allowlist = problems.hasErrors ? undefined : new Allowlist(allow, deny, headMatchesGet);
  return { allowlist, problems: problems.list };
}

function readItem(node: Node, label: string, globs: GlobTable): Item | undefined {
  if (typeof node.value === "string") {
    const place = readPlace(node, label);
    return place === undefined
      ? undefined
      : { label, ...place, methods: [], paths: [], callers: undefined };
  }
  const fields = node.fields({ known: ["host", "port", "ports", "methods", "paths", "callers"] });
  const hostNode = fields.get("host");
  if (hostNode === undefined) return node.error("an item needs host");
  const place = readPlace(hostNode, label);
  const listed = (key: string): readonly Node[] | undefined => {
    const list = fields.get(key);
    const items = list?.items();
    if (items?.length === 0)
      list?.error(`'${key}' must not be empty; leave it out to mean every one`);
    return items;
  };
  const one = fields.get("port")?.integer(1, 65_535);
  const many = listed("ports")?.flatMap((item) => item.integer(1, 65_535) ?? []) ?? [];
  const methods = listed("methods")?.flatMap((item) => readMethod(item) ?? []) ?? [];
  const paths = listed("paths")?.flatMap((item) => readPath(item, globs) ?? []) ?? [];
  const callers = readCallers(fields.get("callers"));
  if (place === undefined) return undefined;
  const ports = [...new Set([...place.ports, ...many, ...(one === undefined ? [] : [one])])];
  return { label, host: place.host, ports, methods, paths, callers };
}

/** `host`, `host:port` or `[v6]:port`. */
function readPlace(node: Node, label: string): Pick<Item, "host" | "ports"> | undefined {
  const written = node.string();
  if (written === undefined) return undefined;
  const [, name = written, port] = /^(\[[^\]]*\]|[^:]*):(\d{1,5})$/.exec(written) ?? [];
  const ports = port === undefined ? [] : [Number(port)];
  if (ports.some((number) => number < 1 || number > 65_535)) {
    return node.error("port must be between 1 and 65535");
  }
  if (name === "*" || name === "**") {
    if (label.startsWith("allow")) node.warning("every host is allowed that deny does not name");
    return { host: "*", ports };
  }
  const syntax = parseHostSyntax(name);
  if (syntax.error !== undefined) return node.error(`host '${name.slice(0, 253)}' ${syntax.error}`);
  return { host: syntax.host, ports };
}

function readMethod(node: Node): string | undefined {
  const method = node.string();
  if (method === undefined) return undefined;
  if (method.toUpperCase() === websocketText) {
    return node.error("messages of WebSocket connections are judged by network_policies only");
  }
  return /^[\w!#$%&'*+.^`|~-]+$/.test(method)
    ? method.toUpperCase()
    : node.error("is no method name");
}

function readPath(node: Node, globs: GlobTable): Glob | undefined {
  const written = node.string();
  if (written === undefined) return undefined;
  if (!written.startsWith("/") && written !== "**")
    return node.error("path must start with '/' or be '**'");
  return readGlob(node, ["/"], globs);
}

/** A compiled pair of lists. */
export class Allowlist {
  /** True when there is no item to allow anything. */
  readonly isEmpty: boolean;
  readonly #allow = new HostIndex<Item>();
  readonly #deny = new HostIndex<Item>();
  readonly #headMatchesGet: boolean;

  constructor(allow: readonly Item[], deny: readonly Item[], headMatchesGet: boolean) {
    this.#headMatchesGet = headMatchesGet;
    this.isEmpty = allow.length === 0;
    for (const item of allow) this.#allow.add(item.host, item);
    for (const item of deny) this.#deny.add(item.host, item);
  }

  /** The refusal of a connection or request that `deny` names, or undefined. */
  denies(facts: ConnectFacts | RequestFacts): PolicyDecision | undefined {
    const items = matching(this.#deny, facts);
    const hit = items.find((item) =>
      "method" in facts ? this.#selects(item, facts, "deny") : !isAboutRequests(item),
    );
    if (hit === undefined) return undefined;
    return {
      effect: "deny",
      code: "deny-rule",
      reason: `${placeOf(facts)} is refused by ${hit.label}`,
      entry: hit.label,
      rule: hit.label,
    };
  }

  /** True when `deny` names some requests to this host and port. */
  refusesRequestsOf(facts: ConnectFacts): boolean {
    return matching(this.#deny, facts).some(isAboutRequests);
  }

  /** True when some item of either list is about requests to this host and port, whoever makes them. */
  judgesRequestsOf(host: string, port: number): boolean {
    let isJudged = false;
    for (const index of [this.#deny, this.#allow]) {
      index.forEach(host, (item) => {
        if (item.ports.length === 0 || item.ports.includes(port))
          isJudged ||= isAboutRequests(item);
      });
    }
    return isJudged;
  }

  /** Judges a connection. Requests on it must be judged too when any item is about requests. */
  evaluateConnect(facts: ConnectFacts): PolicyDecision {
    const denial = this.denies(facts);
    if (denial !== undefined) return denial;
    const allowed = matching(this.#allow, facts);
    const [first] = allowed;
    if (first === undefined) return notListed(facts);
    return { ...listed(facts, first), grant: this.#grant(facts, allowed) };
  }

  #grant(facts: ConnectFacts, allowed: readonly Item[]): Grant {
    const isOpen = allowed.some((item) => !isAboutRequests(item));
    return {
      entries: allowed.map(({ label }) => label),
      inspect: !isOpen || this.refusesRequestsOf(facts),
      tls: "auto",
      allowedIps: undefined,
      isExactHost: allowed.some(({ host }) => host === facts.host),
    };
  }

  /** Judges a request and its connection. */
  evaluateRequest(facts: RequestFacts): PolicyDecision {
    const denial = this.denies(facts);
    if (denial !== undefined) return denial;
    const allowed = matching(this.#allow, facts);
    const hit = allowed.find((item) => this.#selects(item, facts, "allow"));
    if (hit === undefined) return notListed(facts);
    return { ...listed(facts, hit), grant: this.#grant(facts, allowed) };
  }

  #selects(item: Item, { method, path }: RequestFacts, side: "allow" | "deny"): boolean {
    // A server may read an encoded slash as a slash, so that no pattern can be asked about such a path.
    const isUnclear = path.includes("\0") || (item.paths.length > 0 && /%2f/i.test(path));
    const asked = method.toUpperCase();
    const alsoGet = asked === "HEAD" && this.#headMatchesGet;
    const isMethod =
      item.methods.length === 0 ||
      item.methods.some((one) => one === asked || one === "*" || (one === "GET" && alsoGet));
    if (!isMethod || isUnclear) return isMethod && side === "deny";
    return item.paths.length === 0 || item.paths.some((glob) => glob.matches(path));
  }
}

/** The items for a host and port, in the order of the list. */
function matching(index: HostIndex<Item>, facts: ConnectFacts): readonly Item[] {
  const { host, port, caller } = facts;
  const items: Item[] = [];
  index.forEach(host, (item) => {
    const { ports, callers } = item;
    if (ports.length > 0 && !ports.includes(port)) return;
    if (callers === undefined || (caller !== undefined && callers.has(caller))) items.push(item);
  });
  return items;
}

function isAboutRequests(item: Item): boolean {
  return item.methods.length > 0 || item.paths.length > 0;
}

function placeOf(facts: ConnectFacts | RequestFacts): string {
  const place = `${facts.host}:${facts.port}`;
  return "method" in facts ? `${facts.method} ${place}${facts.path}` : place;
}

function listed(facts: ConnectFacts | RequestFacts, item: Item): PolicyDecision {
  const reason = `${placeOf(facts)} is allowed by ${item.label}`;
  return { effect: "allow", code: "allowed", reason, entry: item.label, rule: item.label };
}

function notListed(facts: ConnectFacts | RequestFacts): PolicyDecision {
  const code = "method" in facts ? "not-permitted" : "endpoint-not-allowed";
  return { effect: "deny", code, reason: `${placeOf(facts)} is not on the allow list` };
}
