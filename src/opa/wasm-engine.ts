/** Evaluates the newest good policy in this process; the one before it finishes what it was asked. */
import {
  type DecisionEngine,
  type DecisionPath,
  type Evaluation,
  fault,
  type PolicyObserver,
} from "./decision-engine.ts";
import { WasmEvaluator } from "./wasm-evaluator.ts";
import type { WasmPolicy } from "./wasm-policy.ts";

/** A longer input is a fault: what an agent sends must not fill the evaluator's memory. */
const maxInputBytes = 4 * 1024 * 1024;

/** The holder of a policy that changes. */
export class WasmEngine implements DecisionEngine {
  readonly #timeoutMs: number;
  readonly #observer: PolicyObserver;
  #evaluator: WasmEvaluator | undefined;
  #entrypoints: ReadonlySet<string> = new Set();
  #problem = "no policy has been loaded yet";
  #isClosed = false;

  constructor(timeoutMs: number, observer: PolicyObserver) {
    this.#timeoutMs = timeoutMs;
    this.#observer = observer;
  }

  /** Why the newest policy is not in use; kept for readiness while there is none. */
  set problem(text: string) {
    this.#problem = text;
  }

  /** Puts a policy into use; rejects with an Error that says why it cannot be, and the earlier one stays. */
  async activate(policy: WasmPolicy, source: string): Promise<void> {
    const next = await WasmEvaluator.start(policy, {
      timeoutMs: this.#timeoutMs,
      onKilled: (path) => this.#observer.onKilled(path),
    });
    if (this.#isClosed) {
      next.close();
      return;
    }
    this.#evaluator?.close();
    this.#evaluator = next;
    this.#entrypoints = new Set(policy.entrypoints);
    const { revision, entrypoints } = policy;
    this.#observer.onLoaded({ source, revision, entrypoints });
  }

  evaluate(path: DecisionPath, input: string): Promise<Evaluation> {
    if (this.#evaluator === undefined) {
      return Promise.resolve(fault("not-ready", this.#problem));
    }
    if (!this.#entrypoints.has(path)) return Promise.resolve({ kind: "undefined" });
    if (input.length > maxInputBytes) {
      return Promise.resolve(fault("error", `the input is larger than ${maxInputBytes} bytes`));
    }
    return this.#evaluator.evaluate(path, input);
  }

  ready(): true | string {
    return this.#evaluator === undefined ? this.#problem : true;
  }

  close(): void {
    this.#isClosed = true;
    this.#evaluator?.close();
    this.#evaluator = undefined;
  }
}
