/**
 * A list of destinations for those who want hosts and little else: what is not on it is refused.
 *
 * An item is a host, `host:port`, or `{host, port(s), methods, paths}`; hosts and paths are patterns as in policy
 * files. Items of `deny` beat items of `allow`.
 */
import type { Grant, PolicyDecision } from "./decision.ts";
import type { Glob } from "../pattern/glob.ts";
import { HostIndex } from "./host-index.ts";
import type { ConnectFacts, RequestFacts } from "./request-facts.ts";

/** One item of a list. */
export interface AllowlistItem {
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

/** A compiled pair of lists. */
export class Allowlist {
  /** True when there is no item to allow anything. */
  readonly isEmpty: boolean;
  readonly #allow = new HostIndex<AllowlistItem>();
  readonly #deny = new HostIndex<AllowlistItem>();
  readonly #headMatchesGet: boolean;

  constructor(
    allow: readonly AllowlistItem[],
    deny: readonly AllowlistItem[],
    headMatchesGet: boolean,
  ) {
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
    if (isUnclear(hit, facts)) return unclear(facts, hit);
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

  #grant(facts: ConnectFacts, allowed: readonly AllowlistItem[]): Grant {
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
    if (hit === undefined) {
      const item = allowed.find((one) => isUnclear(one, facts));
      return item === undefined ? notListed(facts, allowed[0]) : unclear(facts, item);
    }
    return { ...listed(facts, hit), grant: this.#grant(facts, allowed) };
  }

  #selects(item: AllowlistItem, facts: RequestFacts, side: "allow" | "deny"): boolean {
    const { method, path } = facts;
    const asked = method.toUpperCase();
    const alsoGet = asked === "HEAD" && this.#headMatchesGet;
    const isMethod =
      item.methods.length === 0 ||
      item.methods.some((one) => one === asked || one === "*" || (one === "GET" && alsoGet));
    if (!isMethod || path.includes("\0") || isUnclear(item, facts))
      return isMethod && side === "deny";
    return item.paths.length === 0 || item.paths.some((glob) => glob.matches(path));
  }
}

/** The items for a host and port, in the order of the list. */
function matching(index: HostIndex<AllowlistItem>, facts: ConnectFacts): readonly AllowlistItem[] {
  const { host, port, caller } = facts;
  const items: AllowlistItem[] = [];
  index.forEach(host, (item) => {
    const { ports, callers } = item;
    if (ports.length > 0 && !ports.includes(port)) return;
    if (callers === undefined || (caller !== undefined && callers.has(caller))) items.push(item);
  });
  return items;
}

function isAboutRequests(item: AllowlistItem): boolean {
  return item.methods.length > 0 || item.paths.length > 0;
}

/** A server may read an encoded slash as a slash, so that no pattern can be asked about such a path. */
function isUnclear({ paths }: AllowlistItem, facts: ConnectFacts | RequestFacts): boolean {
  return paths.length > 0 && "path" in facts && /%2f/i.test(facts.path);
}

function unclear(facts: ConnectFacts | RequestFacts, { label }: AllowlistItem): PolicyDecision {
  const way = "allow_encoded_slash: true on an endpoint of network_policies takes it for data";
  const reason = `${placeOf(facts)} has an encoded slash, and ${label} has paths (${way})`;
  return { effect: "deny", code: "encoded-slash", reason, entry: label, rule: label };
}

function placeOf(facts: ConnectFacts | RequestFacts): string {
  const place = `${facts.host}:${facts.port}`;
  return "method" in facts ? `${facts.method} ${place}${facts.path}` : place;
}

function listed(facts: ConnectFacts | RequestFacts, item: AllowlistItem): PolicyDecision {
  const reason = `${placeOf(facts)} is allowed by ${item.label}`;
  return { effect: "allow", code: "allowed", reason, entry: item.label, rule: item.label };
}

/** `item` is one for the host that is about other requests. */
function notListed(facts: ConnectFacts | RequestFacts, item?: AllowlistItem): PolicyDecision {
  const code = "method" in facts ? "not-permitted" : "endpoint-not-allowed";
  const reason = `${placeOf(facts)} is not on the allow list`;
  return { effect: "deny", code, reason, rule: item?.label };
}
