/**
 * The thread that evaluates: started by wasm-evaluator.ts, one policy for its whole life.
 *
 * Evaluation is synchronous and its cost is the policy's; here it blocks nobody and can be ended from outside.
 */
import { parentPort, workerData } from "node:worker_threads";
import sdk, { type LoadedPolicy } from "@open-policy-agent/opa-wasm";
import type { MemoryPages } from "./wasm-policy.ts";

/** What the thread is started with. */
export interface WorkerStart {
  readonly module: WebAssembly.Module;
  readonly data: string;
  readonly memory: MemoryPages;
}

/** id, document, text of the input. */
export type WorkerQuestion = readonly [id: number, path: string, input: string];

/** Answers carry the id; `ready` comes first, or `failed` and then nothing. */
export type WorkerReply =
  | { readonly kind: "ready" }
  | { readonly kind: "failed"; readonly message: string }
  | { readonly kind: "result"; readonly id: number; readonly result: unknown }
  | { readonly kind: "error"; readonly id: number; readonly message: string };

const { module, data, memory } = workerData as WorkerStart;
const encoder = new TextEncoder();

/** The SDK throws texts and plain objects, too. */
function worded(thrown: unknown): string {
  if (typeof thrown === "string") return thrown;
  const message: unknown =
    typeof thrown === "object" && thrown !== null && "message" in thrown
      ? thrown.message
      : undefined;
  return typeof message === "string" ? message : "unknown";
}

function load(): LoadedPolicy {
  const policy = sdk.loadPolicySync(module, { ...memory }, {});
  policy.setData(encoder.encode(data).buffer);
  return policy;
}

function say(reply: WorkerReply): void {
  parentPort?.postMessage(reply, []);
}

function serve(): void {
  let policy = load();
  parentPort?.on("message", ([id, path, input]: WorkerQuestion) => {
    try {
      say({ kind: "result", id, result: policy.evaluate(encoder.encode(input).buffer, path) });
    } catch (error) {
      say({ kind: "error", id, message: worded(error) });
      // An aborted evaluation may have left anything in its memory.
      policy = load();
    }
  });
  say({ kind: "ready" });
}

try {
  serve();
} catch (error) {
  say({ kind: "failed", message: worded(error) });
}
