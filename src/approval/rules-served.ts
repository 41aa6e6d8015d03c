/** By which rules questions were asked, and which rules the present generation has. */
import { hash } from "node:crypto";
import type { ApprovalGate, ApprovalQuestion } from "../pipeline/approval-gate.ts";
import type { RequestContext } from "../pipeline/context.ts";
import type { Decision } from "../pipeline/decision.ts";
import type { Ask, Asker, OwnPlace } from "./told.ts";

/** Who is asked. */
export interface GateKeeper {
  ask(
    gate: Gate,
    context: RequestContext,
    question: ApprovalQuestion,
  ): Decision | Promise<Decision>;
  rulesChanged(): void;
}

/** The way of one plugin instance. */
export class Gate implements ApprovalGate {
  readonly #keeper: GateKeeper;
  readonly #plugin: string;
  #basis: string;

  constructor(keeper: GateKeeper, plugin: string, basis: string) {
    this.#keeper = keeper;
    this.#plugin = plugin;
    this.#basis = hash("sha256", basis);
  }

  get plugin(): string {
    return this.#plugin;
  }

  /** The instance and its rules. */
  get rules(): string {
    return `${this.#plugin} ${this.#basis}`;
  }

  ask(context: RequestContext, question: ApprovalQuestion): Decision | Promise<Decision> {
    return this.#keeper.ask(this, context, question);
  }

  rebase(basis: string): void {
    this.#basis = hash("sha256", basis);
    this.#keeper.rulesChanged();
  }
}

/** The gates of each generation. */
export class RulesServed {
  readonly #gates = new Map<number, Set<Gate>>();
  /** Of the questions of this thread: the rules by which they were asked. */
  readonly #asked = new Map<string, string>();
  readonly #own: OwnPlace | undefined;
  #serving = 0;

  constructor(own: OwnPlace | undefined) {
    this.#own = own;
  }

  /** Who asks here. */
  get asker(): Asker | undefined {
    return this.#own && { process: this.#own.process, thread: this.#own.thread };
  }

  /** A generation is being built, perhaps not for the first time. */
  begin(generation: number): void {
    if (generation !== this.#serving) this.#gates.delete(generation);
  }

  add(generation: number, gate: Gate): Gate {
    const gates = this.#gates.get(generation) ?? new Set();
    this.#gates.set(generation, gates.add(gate));
    return gate;
  }

  serve(generation: number): void {
    this.#serving = generation;
    for (const older of this.#gates.keys()) if (older < generation) this.#gates.delete(older);
  }

  asked(id: string, rules: string): void {
    this.#asked.set(id, rules);
  }

  /** A question of the thread whose place this one has, also where there were more of them. */
  adopt({ id, rules, asker }: Ask): void {
    if (rules === undefined || asker === undefined || asker.process !== this.#own?.process) return;
    if (asker.thread % this.#own.threads === this.#own.thread) this.asked(id, rules);
  }

  over(id: string): void {
    this.#asked.delete(id);
  }

  /** Takes the questions that were asked by rules which are no longer there. */
  takeStale(): readonly string[] {
    if (this.#serving === 0) return [];
    const served = new Set([...(this.#gates.get(this.#serving) ?? [])].map(({ rules }) => rules));
    const stale = [...this.#asked].flatMap(([id, rules]) => (served.has(rules) ? [] : [id]));
    for (const id of stale) this.#asked.delete(id);
    return stale;
  }
}
