/** Where requests wait for persons: one desk a thread. All desks of a process, and of its replicas, know the same. */
import { hash, randomBytes } from "node:crypto";
import { messageOf } from "../errors.ts";
import {
  type ApprovalArrivals,
  type ApprovalQuestion,
  type Approvals,
  nobodyToAsk,
  wouldAsk,
} from "../pipeline/approval-gate.ts";
import type { RequestContext } from "../pipeline/context.ts";
import { allow, type Decision, deny, type Reply } from "../pipeline/decision.ts";
import { callerOf, type Flow } from "../pipeline/flow.ts";
import { canonicalJson, canonicalRequest } from "./canonical.ts";
import { Claims } from "./claims.ts";
import type { DeskOptions, Heard, HeardListener, Question } from "./desk-options.ts";
import { Ledger, type OpenAsk } from "./ledger.ts";
import { questionOf } from "./question.ts";
import {
  askedBefore,
  away,
  idField,
  notApproved,
  refusedBy,
  standingFor,
  stillPending,
  undecided,
  usedBefore,
} from "./replies.ts";
import { Gate, type GateKeeper, RulesServed } from "./rules-served.ts";
import { type Ask, idOf, type Told, toldOf, type Verdict } from "./told.ts";
import { Waits } from "./waits.ts";

const sweepMs = 1_000;
const idBytes = 18;

/** The questions of one thread. */
export class Desk implements ApprovalArrivals, GateKeeper {
  readonly #options: DeskOptions;
  readonly #ledger: Ledger;
  readonly #waits: Waits;
  readonly #listeners = new Set<HeardListener>();
  readonly #claims: Claims;
  readonly #rules: RulesServed;
  /** What a flow was approved for: a tunnel that is judged again needs no second decision. */
  readonly #passed = new WeakMap<Flow, Set<string>>();
  /** The ids that clients name. */
  readonly #named = new WeakMap<RequestContext, string>();
  /** Those that are being asked, so that a hundred at once are one question. */
  readonly #asking = new Map<string, Promise<OpenAsk | Decision>>();
  readonly #sweep: NodeJS.Timeout;
  #closed: string | undefined;
  #isReplaying = true;
  #end: (() => void) | undefined;

  constructor(options: DeskOptions) {
    this.#options = options;
    this.#ledger = new Ledger(options.settings.maxPending);
    this.#claims = new Claims(options.store, options.settings.expiresMs);
    this.#rules = new RulesServed(options.asker);
    this.#waits = new Waits(options.settings.maxHeld, options.settings.maxHeldPerCaller);
    this.#sweep = setInterval(() => this.#expire(), sweepMs).unref();
  }

  get pending(): readonly OpenAsk[] {
    return this.#ledger.pending;
  }

  get held(): number {
    return this.#waits.size;
  }

  get(id: string): OpenAsk | undefined {
    return this.#ledger.get(id);
  }

  standing(id: string): ReturnType<Ledger["standing"]> {
    return this.#ledger.standing(id);
  }

  /** Hears what is open already, then what others tell. */
  async start(): Promise<void> {
    this.#end = await this.#options.feed.follow((texts) => {
      for (const text of texts) {
        const told = toldOf(text);
        if (told !== undefined) this.#take(told);
      }
    });
    this.#isReplaying = false;
    // What a thread asked whose place this one has, before the rules changed.
    this.rulesChanged();
  }

  onHeard(listener: HeardListener): void {
    this.#listeners.add(listener);
  }

  /** A generation is being built, perhaps not for the first time. */
  begin(generation: number): void {
    this.#rules.begin(generation);
  }

  /** The gates of a generation, for an instance of a plugin. */
  forPlugin(generation: number, plugin: string): Approvals {
    return { gate: (basis) => this.#rules.add(generation, new Gate(this, plugin, basis)) };
  }

  /** From now on this generation serves: what waits for a decision on rules that it does not have is refused. */
  serve(generation: number): void {
    this.#rules.serve(generation);
    this.rulesChanged();
  }

  /** Refuses what was asked by rules that are no longer there. */
  rulesChanged(): void {
    const why = "the rules have changed while it waited: send the request again";
    for (const id of this.#rules.takeStale()) void this.#tell({ kind: "withdrawn", id, why });
  }

  arrive(context: RequestContext): Reply | undefined {
    const { headers } = context;
    const named = headers.get(idField);
    if (named !== undefined) {
      this.#named.set(context, named);
      headers.delete(idField);
    }
    return standingFor(context, this.#ledger, this.#options.settings.retryAfterMs);
  }

  ask(
    gate: Gate,
    context: RequestContext,
    question: ApprovalQuestion,
  ): Decision | Promise<Decision> {
    const request = canonicalRequest(context, question.conceal);
    if (request === undefined) {
      const message = `${question.reason}; what is not read whole cannot be approved (limits.max_body)`;
      return notApproved("body_unread", message, question);
    }
    const { plugin, rules } = gate;
    const bound = { rules, rule: question.rule, request: request.text };
    const digest = hash("sha256", canonicalJson(bound));
    if (this.#passed.get(context.flow)?.has(digest) === true) return allow("approved_before");
    if (context.isHypothetical) return wouldAsk(question);
    const { isAnswered, sessionOf } = this.#options;
    if (!isAnswered) {
      this.#options.count("nobody");
      return nobodyToAsk(question);
    }
    const session = context.sessionId ?? sessionOf(context);
    const asked = { ...question, plugin, context, gate, request, digest, session };
    return this.#enter(asked).catch((error: unknown) => away(error, question));
  }

  /** What an operator or a signed callback decided; gives what counts, which somebody else may have decided before. */
  async decide(verdict: Verdict): Promise<Verdict> {
    const standing = await this.#claims.decide(verdict);
    // Whoever decided may have ended, or not have heard of it, before anybody was told.
    await this.#tell({ kind: "decided", verdict: standing });
    return standing;
  }

  /** The first of two persons. */
  async vote(id: string, by: string): Promise<void> {
    await this.#tell({ kind: "voted", id, by });
  }

  /** What waits is refused, and nothing waits any more. */
  drain(): void {
    this.#closed ??= "the proxy is shutting down";
    this.#waits.settleAll(() => this.#refused(notApproved("draining", this.#closed ?? "")));
  }

  close(): void {
    this.drain();
    clearInterval(this.#sweep);
    this.#end?.();
  }

  async #enter(asked: Question): Promise<Decision> {
    const { digest, session, rule, context } = asked;
    const named = this.#named.get(context);
    const verdict = this.#ledger.verdictOn(digest, session, Date.now());
    if (verdict !== undefined && (named ?? verdict.id) === verdict.id) {
      const used = await this.#use(verdict, asked);
      if (used !== undefined) return used;
    }
    const known = this.#ledger.about(digest);
    if (named !== undefined && known?.id !== named) {
      const message = `the approval named in ${idField} is over, or is for another request: send the request without it to ask again`;
      return this.#refused(notApproved("other_request", message, { rule }));
    }
    const ask = known ?? (await this.#asked(asked));
    if ("action" in ask) return this.#refused(ask);
    if (known !== undefined) {
      // Whoever asked may end, and does not say then that the rules have changed.
      this.#rules.asked(known.id, asked.gate.rules);
      this.#options.count("joined");
    }
    const { isPolling, retryAfterMs } = this.#options.settings;
    return isPolling
      ? this.#refused(stillPending(ask, context, true, retryAfterMs))
      : this.#hold(ask, asked);
  }

  /** The open question, or why there is none. */
  #asked(asked: Question): Promise<OpenAsk | Decision> {
    const { digest } = asked;
    const asking = this.#asking.get(digest);
    if (asking !== undefined) {
      this.#options.count("joined");
      return asking;
    }
    const begun = this.#open(asked).finally(() => this.#asking.delete(digest));
    this.#asking.set(digest, begun);
    return begun;
  }

  async #open(asked: Question): Promise<OpenAsk | Decision> {
    const { maxPendingPerCaller, expiresMs } = this.#options.settings;
    const { context, digest } = asked;
    if (this.#closed !== undefined) return notApproved("draining", this.#closed, asked);
    const caller = callerOf(context.flow.client);
    const full = this.#ledger.reserve(caller, maxPendingPerCaller);
    if (full !== undefined) return this.#tooMany("too_many_pending", full, asked.rule);
    const mine = randomBytes(idBytes).toString("base64url");
    // Where another thread or replica asks the same, it is one question.
    const id = await this.#claims.ask(digest, mine).finally(() => this.#ledger.release(caller));
    if (id !== mine) this.#options.count("joined");
    const ask = questionOf(asked, { id, expiresMs, asker: this.#rules.asker });
    if (this.#ledger.endOf(id) !== undefined) {
      await this.#claims.askOver(digest);
      return askedBefore(asked);
    }
    this.#rules.asked(id, asked.gate.rules);
    // Whoever asked may have ended, or not have heard of it, before anybody was told.
    if (this.#ledger.get(id) === undefined) await this.#tell({ kind: "asked", ask });
    return this.#ledger.get(ask.id) ?? { ...ask, votes: [] };
  }

  #hold(ask: Ask, { context, ...asked }: Question): Promise<Decision> {
    const { settings, count } = this.#options;
    const { keepAliveMs, holdMs, retryAfterMs } = settings;
    if (this.#closed !== undefined) {
      return Promise.resolve(this.#refused(notApproved("draining", this.#closed, asked)));
    }
    const end = this.#ledger.endOf(ask.id);
    if (end?.kind === "decided") return this.#follow(end.verdict, { context, ...asked });
    if (end !== undefined) return Promise.resolve(this.#refused(askedBefore(asked)));
    const caller = callerOf(context.flow.client);
    const full = this.#waits.full(caller);
    if (full !== undefined)
      return Promise.resolve(this.#refused(this.#tooMany("too_many_held", full, asked.rule)));
    const held = this.#waits.hold<Decision>(ask.id, {
      caller,
      limitMs: holdMs,
      late: () => this.#refused(stillPending(ask, context, false, retryAfterMs)),
      cancellation: context.cancellation,
      gone: () => {
        count("cancelled");
        return deny("cancelled", { code: "pipeline.cancelled", message: "the client went away" });
      },
      decided: (verdict) => this.#follow(verdict, { context, ...asked }),
    });
    context.holder?.tellHeld(keepAliveMs);
    return held;
  }

  /** What a decision makes of a request that waited for it. */
  #follow(verdict: Verdict, asked: Question): Promise<Decision> {
    return this.#use(verdict, asked).then(
      (used) => used ?? this.#refused(usedBefore(verdict, asked)),
      (error: unknown) => away(error, asked),
    );
  }

  /** Undefined where it was for once, and has been used. */
  async #use(verdict: Verdict, { context, digest, rule, session }: Question) {
    if (verdict.decision === "deny") return this.#refused(refusedBy(verdict, rule));
    const { id, scope, by } = verdict;
    if (scope === "session" && verdict.session !== session) return undefined;
    if (scope === "once" || scope === "policy") {
      const isFirst = await this.#claims.use(verdict);
      this.#ledger.used(verdict);
      if (!isFirst) return undefined;
    }
    const passed = this.#passed.get(context.flow) ?? new Set();
    this.#passed.set(context.flow, passed.add(digest));
    this.#options.count("passed");
    return allow("approved", { approval: id, by: by.join(" "), scope });
  }

  #tooMany(reason: string, key: string, rule: string | undefined): Decision {
    this.#options.count("too_many");
    return notApproved(reason, `too many requests wait for an approval (${key})`, { rule });
  }

  #refused(decision: Decision): Decision {
    this.#options.count("refused");
    return decision;
  }

  /** Here at once, and everywhere else. */
  async #tell(told: Told): Promise<void> {
    this.#take(told);
    await this.#options.feed.tell(JSON.stringify(told));
  }

  #take(told: Told): void {
    const id = idOf(told);
    const ask = this.#ledger.get(id);
    if (!this.#ledger.take(told, Date.now())) return;
    if (told.kind === "asked") this.#rules.adopt(told.ask);
    else if (told.kind === "decided") {
      this.#over(ask);
      this.#waits.decide(id, told.verdict);
    } else if (told.kind === "withdrawn") {
      this.#over(ask);
      this.#waits.settle(id, () =>
        this.#refused(notApproved("withdrawn", told.why, { id, rule: ask?.rule })),
      );
    }
    this.#hear(told, ask ?? (told.kind === "asked" ? told.ask : undefined));
  }

  #expire(): void {
    for (const ask of this.#ledger.expire(Date.now())) {
      this.#over(ask);
      this.#waits.settle(ask.id, () => this.#refused(undecided(ask)));
      this.#hear({ kind: "expired", ask }, ask);
    }
  }

  #over(ask: Ask | undefined): void {
    if (ask === undefined) return;
    this.#rules.over(ask.id);
    this.#claims
      .askOver(ask.digest)
      .catch((error: unknown) =>
        this.#options.log.warn({ error: messageOf(error) }, "a question could not be removed"),
      );
  }

  #hear(heard: Heard, ask: Ask | undefined): void {
    if (this.#isReplaying) return;
    for (const listener of this.#listeners) listener(heard, ask);
  }
}
