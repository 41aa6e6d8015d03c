/** A server whose traffic is judged: where it is, and what its clients and the server itself may send. */
import { compilePathGlob, type PathGlob } from "../../pattern/path-pattern.ts";
import type { Destination } from "../../net/destination.ts";
import { compileHostGlob, type HostGlob } from "../../pattern/host-pattern.ts";
import { readToolCall, type ToolCall } from "./tool-call.ts";
import { type ToolCaller, ToolRule, type ToolRuleSource } from "./tool-rule.ts";

/** A server as the file writes it. */
export interface GuardedServerSource {
  readonly name: string;
  readonly hosts?: readonly string[] | undefined;
  readonly ports?: readonly number[] | undefined;
  readonly paths: readonly string[];
  readonly methods: readonly string[];
  readonly server_requests: readonly string[];
  readonly rules: readonly ToolRuleSource[];
}

/** What the rules say of a call. */
export type CallVerdict =
  | { readonly isAllowed: true; readonly rule?: string }
  | {
      readonly isAllowed: false;
      /** A person decides. */
      readonly isAsked?: true;
      /** Snake-case word for the record. */
      readonly reason: string;
      /** A sentence that the caller, often a language model, can act on. */
      readonly message: string;
      readonly rule?: string;
    };

/** One compiled server. */
export class GuardedServer {
  readonly name: string;
  /** Rules that name their tools, by the name: a list of tools may be long, and a list of rules, too. */
  readonly #named = new Map<string, ToolRule[]>();
  readonly #unnamed: ToolRule[] = [];
  readonly #hosts: readonly HostGlob[] | undefined;
  readonly #ports: ReadonlySet<number> | undefined;
  readonly #paths: readonly PathGlob[];
  readonly #methods: MethodList;
  readonly #serverRequests: MethodList;

  /** Throws an Error that says what is wrong with a pattern or a rule. */
  constructor(source: GuardedServerSource) {
    this.name = source.name;
    for (const rule of source.rules) {
      const compiled = new ToolRule(rule);
      if (rule.tools === undefined) this.#unnamed.push(compiled);
      for (const name of new Set(rule.tools)) {
        const known = this.#named.get(name);
        if (known === undefined) this.#named.set(name, [compiled]);
        else known.push(compiled);
      }
    }
    this.#hosts = source.hosts?.map((host) => compileHostGlob(host));
    this.#ports = source.ports === undefined ? undefined : new Set(source.ports);
    this.#paths = source.paths.map((path) => compilePathGlob(comparable(path)));
    this.#methods = new MethodList(source.methods);
    this.#serverRequests = new MethodList(source.server_requests);
  }

  /** Whether the server may be behind this destination. */
  isAt({ host, port }: Destination): boolean {
    if (this.#ports?.has(port) === false) return false;
    return this.#hosts === undefined || this.#hosts.some((glob) => glob.matches(host));
  }

  /**
   * Whether one reading of a path is guarded. Case and a slash at the end do not matter, because there are servers to
   * which they do not: more paths are guarded then, never fewer.
   */
  guards(path: string): boolean {
    const reading = comparable(path);
    return this.#paths.some((glob) => glob.matches(reading));
  }

  /** Judges one call: a deny rule beats every allow rule, and what no rule allows is refused. */
  judge(caller: ToolCaller, method: string, params: unknown): CallVerdict {
    const call = readToolCall(method, params);
    if (typeof call === "string") {
      const message = `The parameters of this call cannot be judged: ${call}. Correct them and call again.`;
      return { isAllowed: false, reason: "unreadable_parameters", message };
    }
    const { name } = call;
    const speaking = this.#speaking(caller, method, name);
    const against = speaking.find((rule) => rule.effect === "deny" && rule.fires(call));
    if (against !== undefined) {
      const message = `${titleOf(call)} is refused by the rule "${against.name}". Do not repeat this call; use another tool or other arguments.`;
      return { isAllowed: false, reason: "rule_denied", rule: against.name, message };
    }
    const asking = speaking.find((rule) => rule.effect === "ask" && rule.fires(call));
    if (asking !== undefined) return this.#ask(asking, call);
    const allowing = speaking.filter((rule) => rule.effect === "allow");
    if (allowing.length === 0) return this.#withoutRule(call);
    let objection = "";
    for (const rule of allowing) {
      const reason = rule.objection(call);
      if (reason === undefined) return { isAllowed: true, rule: rule.name };
      objection ||= reason;
    }
    return argumentsRefused(call, objection, allowing[0]?.name ?? "");
  }

  /** What no person can see whole, and what leads to a private place, is not asked about. */
  #ask(rule: ToolRule, call: ToolCall): CallVerdict {
    const objection = rule.objection(call);
    if (objection !== undefined) return argumentsRefused(call, objection, rule.name);
    const message = `${titleOf(call)} needs an approval by the rule "${rule.name}"`;
    return { isAllowed: false, isAsked: true, reason: "needs_approval", rule: rule.name, message };
  }

  #speaking(caller: ToolCaller, method: string, name: string | undefined): readonly ToolRule[] {
    const named = name === undefined ? [] : (this.#named.get(name) ?? []);
    return [...named, ...this.#unnamed].filter((rule) => rule.selects(caller, method, name));
  }

  #withoutRule(call: ToolCall): CallVerdict {
    if (this.#methods.has(call.method)) return { isAllowed: true };
    const list = lists.get(call.method);
    const hint =
      list === undefined ? "" : ` Ask ${list} for what you may use, and spell it exactly.`;
    const message = `${titleOf(call)} is not allowed by any rule.${hint}`;
    return { isAllowed: false, reason: "not_listed", message };
  }

  /** Whether a tool is worth being shown to the caller: some call of it may be allowed. */
  mayUse(caller: ToolCaller, tool: string): boolean {
    const speaking = this.#speaking(caller, "tools/call", tool);
    return (
      speaking.some((rule) => rule.effect !== "deny") &&
      !speaking.some((rule) => rule.effect === "deny" && rule.isUnconditional)
    );
  }

  /** Whether the server may ask its client for this. */
  allowsServerRequest(method: string): boolean {
    return this.#serverRequests.has(method);
  }
}

const lists: ReadonlyMap<string, string> = new Map([
  ["tools/call", "tools/list"],
  ["prompts/get", "prompts/list"],
  ["resources/read", "resources/list"],
]);

function argumentsRefused(call: ToolCall, objection: string, rule: string): CallVerdict {
  const message = `${titleOf(call)} is not allowed with these arguments: ${objection} (rule "${rule}"). Call it with arguments that the rule allows, or do without it.`;
  return { isAllowed: false, reason: "arguments_refused", rule, message };
}

function titleOf({ method, name }: ToolCall): string {
  if (name === undefined) return `The method ${JSON.stringify(method.slice(0, 128))}`;
  const kind = method === "prompts/get" ? "prompt" : "tool";
  return `The ${kind} ${JSON.stringify(name.slice(0, 128))}`;
}

function comparable(path: string): string {
  const lower = path.toLowerCase();
  return lower.length > 1 ? lower.replace(/\/+$/, "") || "/" : lower;
}

/** Method names; one that ends in `/*` is a namespace. */
class MethodList {
  readonly #exact: ReadonlySet<string>;
  readonly #prefixes: readonly string[];

  constructor(entries: readonly string[]) {
    this.#exact = new Set(entries);
    this.#prefixes = entries
      .filter((entry) => entry.endsWith("/*"))
      .map((entry) => entry.slice(0, -1));
  }

  has(method: string): boolean {
    return this.#exact.has(method) || this.#prefixes.some((prefix) => method.startsWith(prefix));
  }
}
