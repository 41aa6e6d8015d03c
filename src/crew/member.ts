/** One thread that serves, from its start to its end, as the thread in control has it. */
import { Worker } from "node:worker_threads";
import type { Refused } from "../app/data-plane.ts";
import type { BoundAddresses } from "../app/listen-options.ts";
import { ProxyError } from "../errors.ts";
import type { Kill } from "../pipeline/kill-switch.ts";
import { Channel, type Handlers } from "../threads/channel.ts";
import type { ControlCalls, Report, SentFile, StartOrder, ThreadCalls } from "./calls.ts";

/** Longest that a thread is waited for that has nothing to wait for itself. */
const reportLimitMs = 2_000;
/** A message of another thread waits for it. */
const nameLimitMs = 1_000;
/** Beside the time that open work gets. */
const closeMarginMs = 10_000;
/** A thread is asked this often whether it runs, and ends when it has let so many of these moments pass. */
const aliveEveryMs = 5_000;
const mostSilentMoments = 6;

/** Beside this folder; the built package has JavaScript. */
const threadFile = new URL(
  import.meta.url.endsWith(".ts") ? "../serving-thread.ts" : "../serving-thread.js",
  import.meta.url,
);

/** A thread has ended that nobody has told to. */
export interface Ending {
  readonly code: number;
  readonly error: Error | undefined;
}

/** The thread. */
export class Member {
  readonly thread: number;
  /** As Node counts threads: no other one has it. */
  readonly id: number;
  /** What it said last, and what is so without it. */
  report: Report = silent("starting");
  /** Whether connections come to it. */
  isServing = false;
  /** The thread is gone. */
  hasEnded = false;
  readonly #worker: Worker;
  readonly #channel: Channel<ThreadCalls, ControlCalls>;
  readonly #watching: NodeJS.Timeout;
  #isClosing = false;
  #silentMoments = 0;
  #isAskedAlive = false;
  #failed: Error | undefined;

  constructor(
    thread: number,
    handlers: Handlers<ControlCalls>,
    onEnded: (member: Member, ending: Ending) => void,
  ) {
    this.thread = thread;
    const worker = new Worker(threadFile, { name: `serving-${thread}` });
    this.#worker = worker;
    this.id = worker.threadId;
    this.#channel = new Channel<ThreadCalls, ControlCalls>(worker, handlers);
    this.#watching = setInterval(() => this.#watch(), aliveEveryMs).unref();
    worker.on("error", (error) => {
      this.#failed = error instanceof Error ? error : new Error(String(error));
    });
    worker.on("exit", (code) => {
      clearInterval(this.#watching);
      this.isServing = false;
      this.hasEnded = true;
      this.#channel.end(new ProxyError("internal.fault", `thread ${thread} has ended`));
      if (!this.#isClosing) onEnded(this, { code, error: this.#failed });
    });
  }

  start(order: StartOrder): Promise<Refused | undefined> {
    return this.#channel.ask("start", order);
  }

  async open(bound: BoundAddresses | undefined): Promise<BoundAddresses> {
    const addresses = await this.#channel.ask("open", bound);
    this.isServing = true;
    return addresses;
  }

  prepare(file: SentFile): Promise<Refused | undefined> {
    return this.#channel.ask("prepare", file);
  }

  swap(generation: number): Promise<void> {
    return this.#channel.ask("swap", generation);
  }

  drop(generation: number): Promise<void> {
    return this.#channel.ask("drop", generation, closeMarginMs);
  }

  recheck(): Promise<number> {
    return this.#channel.ask("recheck", undefined);
  }

  nameOf(id: string): Promise<string | undefined> {
    return this.#channel.ask("nameOf", id, nameLimitMs);
  }

  kill(kills: readonly Kill[]): Promise<number> {
    return this.#channel.ask("kill", kills, reportLimitMs);
  }

  /** Never rejects: a thread that says nothing is one that is not ready. */
  async refresh(details: boolean): Promise<void> {
    if (!this.isServing) return;
    try {
      const report = await this.#channel.ask("report", details, reportLimitMs);
      const { observations, budgets } = details ? report : this.report;
      this.report = { ...report, observations, budgets };
    } catch {
      this.report = { ...this.report, notReady: `thread ${this.thread} does not respond` };
    }
  }

  tell<Name extends "owns" | "level" | "published">(
    name: Name,
    argument: Parameters<ThreadCalls[Name]>[0],
  ): void {
    this.#channel.tell(name, argument as never);
  }

  /** Lets what runs finish until the deadline. */
  async close(drainMs: number): Promise<void> {
    this.#isClosing = true;
    if (this.isServing)
      await this.#channel.ask("close", drainMs, drainMs + closeMarginMs).catch(() => undefined);
    await this.#worker.terminate();
  }

  /**
   * Ends a thread that never gives its turn back: it serves nobody, and keeps all that it has.
   *
   * Moments are counted and not time, as the process may have been stopped itself.
   */
  #watch(): void {
    if (this.#isAskedAlive) {
      this.#silentMoments += 1;
      if (this.#silentMoments < mostSilentMoments) return;
      const seconds = (mostSilentMoments * aliveEveryMs) / 1_000;
      this.#failed = new ProxyError("internal.fault", `it has not responded for ${seconds} s`);
      void this.#worker.terminate();
      return;
    }
    this.#silentMoments = 0;
    this.#isAskedAlive = true;
    const alive = (): void => void (this.#isAskedAlive = false);
    this.#channel.ask("alive", undefined).then(alive, alive);
  }
}

function silent(notReady: string): Report {
  const activity = { connections: 0, flows: 0, tunnels: 0, upstreamConnections: 0, held: 0 };
  return { activity, notReady, note: undefined, observations: [], budgets: undefined };
}
