/** The threads that serve, as a data plane: started together, reloaded in two phases, replaced when one ends. */
import { setTimeout as after } from "node:timers/promises";
import type { DirectedBudgets } from "../admin/budgets.ts";
import type { Kill } from "../pipeline/kill-switch.ts";
import type { PluginObservations } from "../admin/denials.ts";
import type { AppOptions } from "../app/app.ts";
import { ConfigRejected } from "../app/build-problems.ts";
import { type Activity, type DataPlane, makePseudonym, type Refused } from "../app/data-plane.ts";
import type { BoundAddresses } from "../app/listen-options.ts";
import type { ProcessParts } from "../app/process-parts.ts";
import type { LoadedConfig } from "../config/load.ts";
import { asError, messageOf, ProxyError } from "../errors.ts";
import type { BindAddress } from "../listener/bind.ts";
import type { Handlers } from "../threads/channel.ts";
import { usableCores } from "../threads/cores.ts";
import { SharedCounts } from "../threads/shared-count.ts";
import { Order } from "../threads/order.ts";
import type { ControlCalls, SentFile, StartOrder } from "./calls.ts";
import { CrewSessions } from "./crew-sessions.ts";
import { CrewState } from "./crew-state.ts";
import { callHeld } from "./held-values.ts";
import { type Ending, Member } from "./member.ts";

/** What the crew needs of the process. */
export interface CrewServices {
  /** Takes whole lines of the log. */
  writeLines(text: string): void;
  /** The threads keep ending: the process is of no use any more. */
  onHopeless(message: string): void;
}

/** A thread that ended is replaced after this, doubled each time up to the last. */
const firstBackOffMs = 100;
const lastBackOffMs = 10_000;
/** So many threads that end within this time are a loop of crashes. */
const mostEndings = 8;
const endingsWindowMs = 60_000;

/** The threads of a file that wants several; undefined where it wants one. */
export function crewFor(services: CrewServices): NonNullable<AppOptions["threads"]> {
  return (loaded, parts, options) => {
    const { workers } = loaded.config;
    const threads = workers === "auto" ? usableCores() : workers;
    return threads === 1 ? undefined : new Crew({ threads, loaded, parts, options, services });
  };
}

interface CrewParts {
  readonly threads: number;
  readonly loaded: LoadedConfig;
  readonly parts: ProcessParts;
  readonly options: AppOptions;
  readonly services: CrewServices;
}

/** All of them. */
export class Crew implements DataPlane {
  readonly #made: CrewParts;
  readonly #counts: SharedCounts;
  readonly #order: Order;
  readonly #state: CrewState;
  readonly #sessions: CrewSessions;
  readonly #pseudonym = makePseudonym();
  readonly #members: Member[] = [];
  /** Those that were dismissed, until they are gone. */
  readonly #leaving = new WeakMap<Member, Promise<void>>();
  readonly #operators: BindAddress[] = [];
  /** When threads ended that nobody had told to, newest last. */
  #endings: number[] = [];
  #file: SentFile;
  #bound: BoundAddresses = {};
  /** Settles when nothing is being reloaded: a thread that is replaced begins with what serves then. */
  #reloading = Promise.withResolvers<void>();
  #isClosing = false;

  constructor(made: CrewParts) {
    this.#made = made;
    this.#counts = new SharedCounts(made.threads);
    this.#order = new Order(made.threads);
    this.#state = new CrewState(made.parts.state, made.options.log);
    this.#sessions = new CrewSessions({
      sessions: made.parts.sessions,
      order: this.#order,
      nameOf: (thread, id) => this.#members[thread]?.nameOf(id) ?? Promise.resolve(undefined),
    });
    this.#file = this.#sent(made.loaded, made.parts.serving.generation);
    this.#reloading.resolve();
    this.#gauges();
  }

  async open(): Promise<BoundAddresses> {
    const { threads } = this.#made;
    for (let thread = 0; thread < threads; thread += 1) this.#members.push(this.#make(thread));
    const started = await Promise.all(this.#members.map((member) => this.#start(member)));
    const refused = started.find((one) => one !== undefined);
    if (typeof refused === "string") throw new ProxyError("config.invalid", refused);
    if (refused !== undefined) throw new ConfigRejected(refused);
    const [first, ...others] = this.#members;
    if (first !== undefined) this.#bound = await first.open(undefined);
    await Promise.all(others.map((member) => member.open(this.#bound)));
    // What replicas have stopped may have been heard of meanwhile.
    await this.kill(this.#made.parts.kills.kills);
    await this.refresh();
    return { ...this.#bound };
  }

  owns(bound: BindAddress): void {
    this.#operators.push(bound);
    for (const member of this.#members) member.tell("owns", bound);
  }

  notReady(): string | undefined {
    for (const { report, isServing, thread } of this.#members) {
      if (!isServing) return `thread ${thread} is being replaced`;
      if (report.notReady !== undefined) return report.notReady;
    }
    return undefined;
  }

  note(): string | undefined {
    return this.#members.find(({ report }) => report.note !== undefined)?.report.note;
  }

  activity(): Activity {
    const sum = (of: (activity: Activity) => number): number =>
      this.#members.reduce((total, { report }) => total + of(report.activity), 0);
    return {
      connections: sum(({ connections }) => connections),
      flows: sum(({ flows }) => flows),
      tunnels: sum(({ tunnels }) => tunnels),
      upstreamConnections: sum(({ upstreamConnections }) => upstreamConnections),
      held: sum(({ held }) => held),
    };
  }

  async refresh(details = false): Promise<void> {
    await Promise.all(this.#members.map((member) => member.refresh(details)));
  }

  /**
   * The first phase: every thread has the generation, or none keeps it. One that ends meanwhile has no word in it, as what
   * takes its place begins with what serves then; where no other is left, the file may be what ended them.
   */
  async prepare(loaded: LoadedConfig, generation: number): Promise<Refused | undefined> {
    this.#reloading = Promise.withResolvers();
    const file = this.#sent(loaded, generation);
    const ready = this.#serving;
    const words = await Promise.all(ready.map((member) => wordOf(member, file)));
    const refused = words.flat().find((word) => word !== undefined);
    if (refused === undefined && (words.flat().length > 0 || ready.length === 0)) return undefined;
    await Promise.all(ready.map((member) => member.drop(generation).catch(() => undefined)));
    this.#reloading.resolve();
    return refused ?? "every thread has ended that was asked";
  }

  /** The second phase. A thread that ends meanwhile is replaced by one that begins with the new generation. */
  async swap(loaded: LoadedConfig): Promise<void> {
    this.#file = this.#sent(loaded, this.#made.parts.serving.generation);
    await Promise.all(
      this.#serving.map((member) =>
        member.swap(this.#file.generation).catch((error: unknown) => this.#dismiss(member, error)),
      ),
    );
    this.#reloading.resolve();
  }

  async recheck(): Promise<number> {
    const cut = await Promise.all(this.#serving.map((member) => member.recheck().catch(() => 0)));
    return cut.reduce((sum, one) => sum + one, 0);
  }

  /** A thread that does not follow is dismissed: what it carries is cut with it. */
  async kill(kills: readonly Kill[]): Promise<number> {
    this.#made.parts.kills.set(kills);
    const cut = await Promise.all(
      this.#serving.map((member) =>
        member.kill(kills).catch(async (error: unknown) => {
          await this.#dismiss(member, error);
          return 0;
        }),
      ),
    );
    return cut.reduce((sum, one) => sum + one, 0);
  }

  observations(): readonly (readonly PluginObservations[])[] {
    return this.#members.map(({ report }) => report.observations);
  }

  budgets(): readonly DirectedBudgets[] {
    return this.#members.flatMap(({ report }) => report.budgets ?? []);
  }

  levelChanged(): void {
    for (const member of this.#members) member.tell("level", this.#made.options.log.level);
  }

  async close(drainMs: number): Promise<void> {
    this.#isClosing = true;
    this.#reloading.resolve();
    await Promise.all(this.#members.map((member) => member.close(drainMs)));
    this.#sessions.close();
    await this.#state.close();
  }

  get #serving(): Member[] {
    return this.#members.filter(({ isServing }) => isServing);
  }

  #sent({ bytes, path }: LoadedConfig, generation: number): SentFile {
    return { bytes, path, generation, lenient: this.#made.options.lenient };
  }

  #make(thread: number): Member {
    const handlers = this.#handlers(thread);
    return new Member(thread, handlers, (member, ending) => void this.#ended(member, ending));
  }

  #start(member: Member): Promise<Refused | undefined> {
    const { threads, options, parts } = this.#made;
    const order: StartOrder = {
      file: this.#file,
      version: options.version,
      level: options.log.level,
      thread: member.thread,
      threads,
      counts: this.#counts.memory,
      order: this.#order.memory,
      pseudonym: this.#pseudonym,
      seed: parts.state.seed,
      instanceId: parts.otlp?.instanceId ?? "",
      kills: parts.kills.kills,
    };
    return member.start(order);
  }

  #handlers(thread: number): Handlers<ControlCalls> {
    const { parts, services } = this.#made;
    const published = (store: string, channel: string, message: string): void =>
      this.#members[thread]?.tell("published", { store, channel, message });
    return {
      lines: (text) => services.writeLines(text),
      moments: (moments) => {
        for (const moment of moments) this.#sessions.record(moment);
      },
      told: (word) => this.#sessions.told(thread, word),
      opened: (facts) => this.#sessions.opened(thread, facts),
      whose: (asked) => this.#sessions.whose(asked),
      counted: ({ metrics, durations }) => {
        parts.metrics.add(metrics);
        if (durations !== undefined) parts.otlp?.durations?.add(durations);
      },
      state: (question) => this.#state.answer(thread, question, published),
      held: (call) => callHeld(parts.services.carried, call),
      authority: () => {
        const { authority } = parts.services;
        if (authority === undefined) throw new ProxyError("internal.fault", "no authority");
        return authority();
      },
    };
  }

  /** What the thread had is gone with it, and nothing else. */
  async #ended(member: Member, { code, error }: Ending): Promise<void> {
    const { thread } = member;
    this.#counts.forget(thread);
    this.#state.forget(thread);
    this.#sessions.forget(thread);
    this.#made.parts.services.carried.threadEnded(member.id);
    if (this.#isClosing || this.#members[thread] !== member) return;
    const { log } = this.#made.options;
    this.#made.parts.metrics.counters.threads_ended_total.of().value += 1;
    log.error(
      { thread, code, error: error?.message },
      "a thread has ended, with the connections that it had; it is replaced",
    );
    const now = performance.now();
    this.#endings = [...this.#endings.filter((at) => now - at < endingsWindowMs), now];
    if (this.#endings.length >= mostEndings) {
      this.#made.services.onHopeless(
        `${mostEndings} threads have ended within ${endingsWindowMs / 1_000} s: the process ends`,
      );
      return;
    }
    const backOffMs = firstBackOffMs * 2 ** (this.#endings.length - 1);
    await after(Math.min(backOffMs, lastBackOffMs), undefined, { ref: false });
    await this.#replace(thread);
  }

  async #replace(thread: number): Promise<void> {
    await this.#reloading.promise;
    if (this.#isClosing) return;
    const member = this.#make(thread);
    this.#members[thread] = member;
    const { generation } = this.#file;
    try {
      const refused = await this.#start(member);
      if (refused !== undefined)
        throw new Error(
          typeof refused === "string" ? refused : refused.map(({ message }) => message).join("; "),
        );
      await this.#reloading.promise;
      this.#mustServe(generation);
      // It may have begun before an order.
      await member.kill(this.#made.parts.kills.kills);
      await member.open(this.#bound);
      // A whole reload may have passed that it was not asked about, and an order that it did not hear.
      this.#mustServe(generation);
      await member.kill(this.#made.parts.kills.kills);
      for (const bound of this.#operators) member.tell("owns", bound);
      member.tell("level", this.#made.options.log.level);
      this.#made.options.log.info({ thread }, "a thread serves in place of the one that ended");
    } catch (failure) {
      void this.#dismiss(member, failure);
    }
  }

  /** Throws where what a thread began with is no longer served. */
  #mustServe(generation: number): void {
    if (generation !== this.#file.generation) throw new Error("the file has changed meanwhile");
  }

  /**
   * Ends a thread that cannot serve what is served, and resolves when it is gone. One that has ended by itself is being replaced
   * already, and so is one that is dismissed twice: of two in its place, one would be out of everybody's reach.
   */
  #dismiss(member: Member, why: unknown): Promise<void> {
    if (member.hasEnded || this.#isClosing) return Promise.resolve();
    const known = this.#leaving.get(member);
    if (known !== undefined) return known;
    const leaving = member.close(0);
    this.#leaving.set(member, leaving);
    void leaving.then(() => this.#ended(member, { code: 0, error: asError(why) }));
    return leaving;
  }

  #gauges(): void {
    const { metrics } = this.#made.parts;
    metrics.gauge("threads", () => this.#serving.length);
    metrics.gauge("transparent_listener_up", () => (this.#bound.transparent === undefined ? 0 : 1));
  }
}

/** Nothing from one that has ended. */
async function wordOf(member: Member, file: SentFile): Promise<(Refused | undefined)[]> {
  try {
    return [await member.prepare(file)];
  } catch (error) {
    return member.hasEnded ? [] : [messageOf(error)];
  }
}
