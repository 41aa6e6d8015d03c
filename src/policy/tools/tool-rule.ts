/** One rule: the callers and calls that it applies to, and its conditions on the arguments. */
import { AddressSet, type Cidr, parseAddress, parseCidr } from "../../net/address.ts";
import { BinaryMatcher, type CallerFacts } from "../binary-matcher.ts";
import { GlobTable } from "../../pattern/glob.ts";
import { type ArgumentConditions, compileConditions, type Condition } from "./argument-matcher.ts";
import { type ArgumentPath, parseArgumentPath, selectArguments } from "./argument-path.ts";
import { type ArgumentSchema, compileArgumentSchema } from "./argument-schema.ts";
import { textsIn, type ToolCall } from "./tool-call.ts";
import { type PrivateExceptions, privatePlace } from "./url-argument.ts";

/** Who calls, as far as it was verified. */
export interface ToolCaller {
  readonly subject?: string | undefined;
  readonly clientId?: string | undefined;
  readonly scopes: readonly string[];
  /** The authenticated name of the agent. */
  readonly agent?: string | undefined;
  readonly process: CallerFacts;
}

/** The conditions of one argument, which may be absent where the rule says so. */
export interface ArgumentRule extends ArgumentConditions {
  readonly optional: boolean;
}

/** A rule as the file writes it. */
export interface ToolRuleSource {
  readonly name: string;
  readonly effect: "allow" | "deny" | "ask";
  readonly callers?: CallerSource | undefined;
  readonly methods: readonly string[];
  readonly tools?: readonly string[] | undefined;
  readonly schema?: Readonly<Record<string, unknown>> | undefined;
  readonly arguments?: Readonly<Record<string, ArgumentRule>> | undefined;
  readonly allow_private: readonly string[];
}

/** The callers that a rule applies to; every list that is given must name the caller. */
export interface CallerSource {
  readonly subjects?: readonly string[] | undefined;
  readonly clients?: readonly string[] | undefined;
  readonly scopes?: readonly string[] | undefined;
  readonly agents?: readonly string[] | undefined;
  readonly binaries?: readonly string[] | undefined;
}

interface CompiledArgument {
  readonly path: ArgumentPath;
  readonly conditions: readonly Condition[];
  readonly isOptional: boolean;
  /** The value is one of a list that the operator wrote, and needs no look at where it leads. */
  readonly isListed: boolean;
}

/** A compiled rule. */
export class ToolRule {
  readonly name: string;
  readonly effect: "allow" | "deny" | "ask";
  readonly #callers: CallerSource;
  readonly #binaries: BinaryMatcher | undefined;
  readonly #methods: ReadonlySet<string>;
  readonly #tools: ReadonlySet<string> | undefined;
  readonly #schema: ArgumentSchema | undefined;
  readonly #arguments: readonly CompiledArgument[];
  readonly #exceptions: PrivateExceptions;
  readonly #hasPatterns: boolean;

  /** Throws an Error that says what is wrong with the rule. */
  constructor(source: ToolRuleSource) {
    this.name = source.name;
    this.effect = source.effect;
    this.#callers = source.callers ?? {};
    const { binaries } = this.#callers;
    this.#binaries =
      binaries === undefined ? undefined : new BinaryMatcher(binaries, new GlobTable());
    this.#methods = new Set(source.methods);
    this.#tools = source.tools === undefined ? undefined : new Set(source.tools);
    this.#schema = source.schema === undefined ? undefined : compileArgumentSchema(source.schema);
    this.#arguments = Object.entries(source.arguments ?? {}).map(([path, rule]) => ({
      path: parseArgumentPath(path),
      conditions: compileConditions(rule),
      isOptional: rule.optional,
      isListed: rule.enum !== undefined || rule.cidr !== undefined,
    }));
    this.#exceptions = readExceptions(source.allow_private, source.methods);
    const conditions = Object.values(source.arguments ?? {});
    this.#hasPatterns =
      conditions.some(({ pattern }) => pattern !== undefined) ||
      JSON.stringify(source.schema ?? {}).includes('"pattern');
  }

  /** True for a rule that asks nothing of the arguments. */
  get isUnconditional(): boolean {
    return this.#schema === undefined && this.#arguments.length === 0;
  }

  /** Whether the rule applies to this call of this caller. */
  selects(caller: ToolCaller, method: string, name: string | undefined): boolean {
    if (!this.#methods.has(method)) return false;
    if (this.#tools !== undefined && (name === undefined || !this.#tools.has(name))) return false;
    return this.#admits(caller);
  }

  #admits({ subject, clientId, scopes, agent, process }: ToolCaller): boolean {
    const wanted = this.#callers;
    if (wanted.subjects !== undefined && !isIn(wanted.subjects, subject)) return false;
    if (wanted.clients !== undefined && !isIn(wanted.clients, clientId)) return false;
    if (wanted.agents !== undefined && !isIn(wanted.agents, agent)) return false;
    if (wanted.scopes?.every((scope) => scopes.includes(scope)) === false) return false;
    return this.#binaries === undefined || this.#binaries.matches(process);
  }

  /** Why this allow rule does not grant the call, in words for the caller; undefined when it grants it. */
  objection({ args }: ToolCall): string | undefined {
    if (this.#hasPatterns && isLongerThan(args, maxPatternTotal)) return tooLong;
    for (const argument of this.#arguments) {
      const reason = this.#argumentObjection(args, argument);
      if (reason !== undefined) return reason;
    }
    return this.#schema?.objection(args) ?? this.#privateObjection(args);
  }

  #argumentObjection(args: unknown, argument: CompiledArgument): string | undefined {
    const { path, conditions, isOptional } = argument;
    for (const selected of selectArguments(args, path)) {
      if (selected.kind === "missing" && isOptional) continue;
      for (const condition of conditions) {
        const match =
          selected.kind === "value" ? condition.test(selected.value, this.#exceptions) : "no";
        if (match !== "match") return `${path.source} must ${condition.wants}`;
      }
      if (selected.kind !== "value") return `${path.source} is missing`;
    }
    return undefined;
  }

  /** Whether this deny rule refuses the call: its conditions hold, or cannot be evaluated. */
  fires({ args }: ToolCall): boolean {
    if (this.#hasPatterns && isLongerThan(args, maxPatternTotal)) return true;
    const holds = this.#arguments.every(({ path, conditions }) =>
      selectArguments(args, path).some(
        (selected) =>
          selected.kind === "ambiguous" ||
          (selected.kind === "value" &&
            conditions.every((condition) => condition.test(selected.value, anywhere) !== "no")),
      ),
    );
    return holds && this.#schema?.mayMatch(args) !== false;
  }

  /** An argument that leads to a place which is not public, where no exception names it. */
  #privateObjection(args: unknown): string | undefined {
    let listed: Set<unknown> | undefined;
    for (const text of textsIn(args)) {
      const place = privatePlace(text, this.#exceptions);
      if (place === undefined) continue;
      listed ??= this.#listedValues(args);
      if (!listed.has(text)) {
        return `the arguments must not name ${place} (a URL in them leads there)`;
      }
    }
    return undefined;
  }

  #listedValues(args: unknown): Set<unknown> {
    const paths = this.#arguments.filter(({ isListed }) => isListed).map(({ path }) => path);
    const selected = paths.flatMap((path) => selectArguments(args, path));
    return new Set(selected.map((one) => (one.kind === "value" ? one.value : undefined)));
  }
}

/** Patterns are linear in the text and yet slower than the rest: what one call may make them read is bounded. */
const maxPatternTotal = 262_144;
const tooLong = `the arguments must not have more than ${maxPatternTotal} characters of text`;

function isLongerThan(args: unknown, most: number): boolean {
  let total = 0;
  for (const text of textsIn(args)) {
    total += text.length;
    if (total > most) return true;
  }
  return false;
}

/** A deny rule is about the place itself: where it leads does not matter. */
const anywhere: PrivateExceptions = {
  addresses: AddressSet.parse(["0.0.0.0/0", "::/0"]),
  hosts: { has: () => true } as unknown as ReadonlySet<string>,
};

function isIn(list: readonly string[], value: string | undefined): boolean {
  return value !== undefined && list.includes(value);
}

function readExceptions(entries: readonly string[], methods: readonly string[]): PrivateExceptions {
  const ranges: Cidr[] = [];
  // Resources of MCP are often named by file URIs.
  const hosts = new Set(methods.some((method) => method.startsWith("resources/")) ? ["file:"] : []);
  for (const entry of entries) {
    const isRange = parseAddress(entry.split("/", 1)[0] ?? "") !== undefined;
    if (isRange) ranges.push(parseCidr(entry));
    else hosts.add(entry.toLowerCase());
  }
  return { addresses: new AddressSet(ranges), hosts };
}
