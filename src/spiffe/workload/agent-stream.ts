/** A call of the Workload API that stays: opened with the first need, and opened again whenever it ends. */
import { messageOf } from "../../errors.ts";
import { type AgentItem, type AgentOptions, usualAnswerMs } from "./agent.ts";
import { type AgentCall, callAgent } from "./agent-call.ts";
import { BackOff } from "./back-off.ts";

/** A longer wait does not fit into a timer; the look after it finds that it is not due. */
const longestTimerMs = 2 ** 31 - 1;
const shortestPatienceMs = 1_000;

/** What is streamed. */
export interface AgentStreamOptions extends AgentOptions {
  readonly method: AgentCall["method"];
  readonly item: AgentItem;
  /**
   * Uses a message, or throws an Error, which ends the stream. The result is for how long the stream may be silent, in
   * milliseconds; one that is silent for longer is opened anew.
   */
  take(this: void, message: Buffer): number;
}

/** One stream, its end and its next beginning. */
export class AgentStream {
  readonly #options: AgentStreamOptions;
  readonly #backOff: BackOff;
  readonly #closing = new AbortController();
  readonly #listeners = new Set<() => void>();
  readonly #first = Promise.withResolvers<void>();
  #running: Promise<void> | undefined;
  #problem: string | undefined;

  constructor(options: AgentStreamOptions) {
    this.#options = options;
    this.#backOff = new BackOff(options.backOff);
  }

  /** Why the last stream ended, or undefined while one is well. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Resolves once a first message was taken, or a first attempt has failed. */
  get settled(): Promise<void> {
    return this.#first.promise;
  }

  /** Opens it, if it is not open. */
  begin(): void {
    if (this.#closing.signal.aborted) return;
    this.#running ??= this.#run();
  }

  onChange(listener: () => void): () => void {
    // Two listeners may be one function.
    const entry = (): void => listener();
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  /** Tells the listeners. */
  changed(): void {
    for (const listener of this.#listeners) listener();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#listeners.clear();
    this.#first.resolve();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await this.#listen(signal);
      if (!signal.aborted) await this.#backOff.wait(signal);
    }
  }

  /** From its opening to its end. */
  async #listen(closing: AbortSignal): Promise<void> {
    const { socket, method, answerMs = usualAnswerMs, take } = this.#options;
    // A stream that is open and silent could be that of an agent that hangs.
    const stale = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    try {
      await callAgent({
        socket,
        method,
        request: Buffer.alloc(0),
        answerMs,
        stays: true,
        signal: AbortSignal.any([closing, stale.signal]),
        onMessage: (message) => {
          const patienceMs = take(message);
          this.#problem = undefined;
          this.#first.resolve();
          this.#backOff.reset();
          clearTimeout(timer);
          const waitMs = Math.min(longestTimerMs, Math.max(shortestPatienceMs, patienceMs));
          timer = setTimeout(() => stale.abort(), waitMs).unref();
        },
      });
      this.#failed("the agent ended the stream");
    } catch (error) {
      if (!closing.aborted && !stale.signal.aborted) this.#failed(messageOf(error));
    } finally {
      clearTimeout(timer);
    }
  }

  #failed(problem: string): void {
    const { observer, item } = this.#options;
    const isNew = problem !== this.#problem;
    this.#problem = problem;
    this.#first.resolve();
    observer.failed(item, problem, isNew);
  }
}
