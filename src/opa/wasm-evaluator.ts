/** One loaded policy and the thread that evaluates it: questions in order, each with a limit of time. */
import { Worker } from "node:worker_threads";
import { type DecisionPath, type Evaluation, fault } from "./decision-engine.ts";
import type { WasmPolicy } from "./wasm-policy.ts";
import type { WorkerReply, WorkerQuestion, WorkerStart } from "./wasm-worker.ts";

/** Options of an evaluator. */
export interface EvaluatorOptions {
  /** Until the decision is there, waiting included. */
  readonly timeoutMs: number;
  onKilled(path: string): void;
}

interface Waiting {
  readonly path: DecisionPath;
  readonly input: string;
  readonly deadline: NodeJS.Timeout;
  settle(evaluation: Evaluation): void;
  isSettled: boolean;
}

/** Questions of more flows than this, or of more bytes, are refused. */
const maxWaiting = 1_024;
const maxWaitingBytes = 32 * 1024 * 1024;
const startTimeoutMs = 10_000;
const tooSlow = `the policy did not load within ${startTimeoutMs} ms`;

/** Beside this file; the built package has JavaScript. */
const workerFile = new URL(
  import.meta.url.endsWith(".ts") ? "./wasm-worker.ts" : "./wasm-worker.js",
  import.meta.url,
);

/** Evaluates one policy until it is closed. A thread that hangs or exits is replaced. */
export class WasmEvaluator {
  readonly #policy: WasmPolicy;
  readonly #options: EvaluatorOptions;
  /** In the order in which the thread works; the first is under way. */
  readonly #waiting = new Map<number, Waiting>();
  readonly #runLimit: NodeJS.Timeout;
  #bytes = 0;
  #lastId = 0;
  #worker: Worker | undefined;
  /** It has loaded the policy, and is asked what waits; until then it is given time of its own. */
  #isReady = false;
  #startedAt = 0;
  #isClosing = false;

  private constructor(policy: WasmPolicy, options: EvaluatorOptions) {
    this.#policy = policy;
    this.#options = options;
    this.#runLimit = setTimeout(() => this.#onRunLimit(), options.timeoutMs).unref();
  }

  /** Starts a thread and waits until it has loaded the policy; rejects with an Error that says why it could not. */
  static async start(policy: WasmPolicy, options: EvaluatorOptions): Promise<WasmEvaluator> {
    const evaluator = new WasmEvaluator(policy, options);
    const worker = evaluator.#startWorker();
    try {
      await loaded(worker);
      return evaluator;
    } catch (error) {
      evaluator.close();
      throw error;
    }
  }

  evaluate(path: DecisionPath, input: string): Promise<Evaluation> {
    if (this.#waiting.size >= maxWaiting || this.#bytes + input.length > maxWaitingBytes) {
      return Promise.resolve(fault("overloaded", "too many policy decisions are waiting"));
    }
    return new Promise((resolve) => {
      this.#lastId += 1;
      const waiting: Waiting = {
        path,
        input,
        isSettled: false,
        deadline: setTimeout(
          () => waiting.settle(timedOut(this.#options.timeoutMs)),
          this.#options.timeoutMs,
        ),
        settle: (evaluation) => {
          if (waiting.isSettled) return;
          waiting.isSettled = true;
          clearTimeout(waiting.deadline);
          resolve(evaluation);
        },
      };
      this.#bytes += input.length;
      this.#waiting.set(this.#lastId, waiting);
      if (this.#waiting.size === 1) this.#runLimit.refresh();
      if (this.#worker === undefined) this.#startWorker();
      else if (this.#isReady) this.#post(this.#lastId, waiting);
    });
  }

  /** Ends the thread once the questions that it was asked are answered. */
  close(): void {
    this.#isClosing = true;
    if (this.#waiting.size === 0) this.#stop();
  }

  #stop(): void {
    clearTimeout(this.#runLimit);
    const worker = this.#worker;
    this.#worker = undefined;
    void worker?.terminate();
  }

  #post(id: number, { path, input }: Waiting): void {
    const question: WorkerQuestion = [id, path, input];
    this.#worker?.postMessage(question, []);
  }

  #startWorker(): Worker {
    const { module, data, memory } = this.#policy;
    const workerData: WorkerStart = { module, data, memory };
    const worker = new Worker(workerFile, {
      workerData,
      env: {},
      // What a policy prints may be anything that it was given.
      stdout: true,
      stderr: true,
      resourceLimits: { maxOldGenerationSizeMb: 128 },
    });
    worker.stdout.resume();
    worker.stderr.resume();
    worker.unref();
    worker.on("message", (reply: WorkerReply) => {
      if (worker === this.#worker) this.#onReply(reply);
    });
    worker.on("error", (error: Error) => this.#onDeath(worker, error.message));
    worker.on("exit", () => this.#onDeath(worker, "the evaluating thread ended"));
    this.#worker = worker;
    this.#isReady = false;
    this.#startedAt = performance.now();
    return worker;
  }

  #onReply(reply: WorkerReply): void {
    switch (reply.kind) {
      case "ready":
        this.#isReady = true;
        this.#askAll();
        return;
      case "failed":
        if (this.#worker !== undefined) this.#onDeath(this.#worker, reply.message);
        return;
      case "result":
        this.#take(reply.id)?.settle(evaluationOf(reply.result));
        return;
      case "error":
        this.#take(reply.id)?.settle(fault("error", reply.message));
    }
  }

  #take(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return undefined;
    this.#waiting.delete(id);
    this.#bytes -= waiting.input.length;
    if (this.#waiting.size > 0) this.#runLimit.refresh();
    else if (this.#isClosing) this.#stop();
    return waiting;
  }

  /** Those that wait, less those who have gone. */
  #askAll(): void {
    for (const [id, waiting] of this.#waiting) {
      if (waiting.isSettled) this.#take(id);
      else this.#post(id, waiting);
    }
    this.#runLimit.refresh();
  }

  /** The first question has been under way for too long: its thread is replaced, and the others are asked again. */
  #onRunLimit(): void {
    const [first] = this.#waiting;
    if (first === undefined) return;
    if (this.#worker !== undefined && !this.#isReady) {
      if (performance.now() - this.#startedAt >= startTimeoutMs)
        this.#onDeath(this.#worker, tooSlow);
      this.#runLimit.refresh();
      return;
    }
    const [id, running] = first;
    this.#options.onKilled(running.path);
    this.#take(id)?.settle(timedOut(this.#options.timeoutMs));
    const worker = this.#worker;
    this.#worker = undefined;
    void worker?.terminate();
    if (this.#waiting.size > 0) this.#startWorker();
    this.#runLimit.refresh();
  }

  #onDeath(worker: Worker, message: string): void {
    if (worker !== this.#worker) return;
    this.#worker = undefined;
    void worker.terminate();
    for (const id of this.#waiting.keys()) this.#take(id)?.settle(fault("error", message));
  }
}

/** The SDK answers with a set of results: empty when the document is undefined. */
function evaluationOf(result: unknown): Evaluation {
  if (!Array.isArray(result)) return fault("error", "the policy's answer is no result set");
  const [first] = result as unknown[];
  if (first === undefined) return { kind: "undefined" };
  if (typeof first !== "object" || first === null || !("result" in first)) {
    return fault("error", "the policy's answer has no result");
  }
  return { kind: "value", value: first.result };
}

function timedOut(timeoutMs: number): Evaluation {
  return fault("timeout", `no decision within ${timeoutMs} ms`);
}

function loaded(worker: Worker): Promise<void> {
  return new Promise((resolve, reject) => {
    const deadline = setTimeout(() => reject(new Error(tooSlow)), startTimeoutMs);
    const finish = (problem: string | undefined): void => {
      clearTimeout(deadline);
      if (problem === undefined) resolve();
      else reject(new Error(`the policy cannot be loaded: ${problem}`));
    };
    worker.once("message", (reply: WorkerReply) =>
      finish(reply.kind === "failed" ? reply.message : undefined),
    );
    worker.once("error", (error: Error) => finish(error.message));
    worker.once("exit", () => finish("the evaluating thread ended"));
  });
}
