/** An OPA server, asked over its REST data API; one question per decision. */
import { parseJsonObject } from "../http/json-access.ts";
import { messageOf, ProxyError } from "../errors.ts";
import {
  type Credentials,
  type DecisionEngine,
  type DecisionPath,
  type Evaluation,
  fault,
} from "./decision-engine.ts";
import { askAgain } from "../http/ask-again.ts";
import type { OperatorFetch, OperatorResponse } from "../http/operator-fetch.ts";

/** What the server is asked with. */
export interface ServerEngineOptions {
  /** `https://opa:8181`, or `unix:///run/opa.sock:`; paths of the API are added to it. */
  readonly base: string;
  readonly call: OperatorFetch;
  readonly credentials: Credentials;
  /** Until the decision is there, a second attempt included. */
  readonly timeoutMs: number;
  /** What is known of the server; it outlives the generation. */
  readonly state: ServerState;
  onProblem(problem: string): void;
}

/** Whether the server has ever responded. */
export interface ServerState {
  isReached: boolean;
}

const maxResponseBytes = 1024 * 1024;
const maxWaiting = 1_024;
/** Between two attempts to reach a server that has never responded. */
const firstProbeMs = 250;
const lastProbeMs = 5_000;

/** Asks one server. */
export class ServerEngine implements DecisionEngine {
  readonly #options: ServerEngineOptions;
  readonly #closing = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #waiting = 0;
  #problem = "the OPA server has not answered yet";

  constructor(options: ServerEngineOptions) {
    this.#options = options;
  }

  /** Begins to look whether the server is there, without waiting for it. */
  start(): void {
    if (!this.#options.state.isReached) void this.#probe(firstProbeMs);
  }

  ready(): true | string {
    return this.#options.state.isReached ? true : this.#problem;
  }

  async evaluate(path: DecisionPath, input: string): Promise<Evaluation> {
    if (this.#waiting >= maxWaiting) {
      return fault("overloaded", "too many policy decisions are waiting");
    }
    this.#waiting += 1;
    try {
      return this.#read(await this.#ask(path, input));
    } catch (error) {
      if (error instanceof ProxyError && error.code === "upstream.timeout") {
        return fault("timeout", `no decision within ${this.#options.timeoutMs} ms`);
      }
      return fault("error", messageOf(error));
    } finally {
      this.#waiting -= 1;
    }
  }

  close(): void {
    this.#closing.abort();
    clearTimeout(this.#timer);
  }

  #ask(path: DecisionPath, input: string): Promise<OperatorResponse> {
    return askAgain(this.#options.timeoutMs, (leftMs) => this.#post(path, input, leftMs));
  }

  async #post(path: DecisionPath, input: string, timeoutMs: number): Promise<OperatorResponse> {
    const credentials = await this.#credentials(timeoutMs);
    return this.#options.call(`${this.#options.base}/v1/data/${path}`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        accept: "application/json",
        ...credentials,
      },
      body: `{"input":${input}}`,
      timeoutMs,
      maxBytes: maxResponseBytes,
      signal: this.#closing.signal,
    });
  }

  #credentials(timeoutMs: number): ReturnType<Credentials> {
    const limit = AbortSignal.timeout(timeoutMs);
    return this.#options.credentials(AbortSignal.any([this.#closing.signal, limit]));
  }

  /** A response without `result` means that the document is undefined. */
  #read({ status, body }: OperatorResponse): Evaluation {
    if (status !== 200) return fault("error", `the OPA server answered ${status}`);
    const document = parseJsonObject(body.toString("utf8"));
    if (document === undefined)
      return fault("error", "the OPA server's answer is not a JSON object");
    this.#options.state.isReached = true;
    const { result, decision_id: id } = document;
    const decisionId = typeof id === "string" ? { decisionId: id.slice(0, 128) } : {};
    return result === undefined
      ? { kind: "undefined", ...decisionId }
      : { kind: "value", value: result, ...decisionId };
  }

  /** Never rejects. A server that wants a token, or has no such path, is there all the same. */
  async #probe(waitMs: number): Promise<void> {
    const problem = await this.#look();
    if (this.#closing.signal.aborted || this.#options.state.isReached) return;
    if (problem === undefined) {
      this.#options.state.isReached = true;
      return;
    }
    if (problem !== this.#problem) {
      this.#problem = problem;
      this.#options.onProblem(problem);
    }
    const next = Math.min(waitMs * 2, lastProbeMs);
    this.#timer = setTimeout(() => void this.#probe(next), waitMs).unref();
  }

  async #look(): Promise<string | undefined> {
    const { call, base, timeoutMs } = this.#options;
    try {
      const { status } = await call(`${base}/health?bundles`, {
        headers: await this.#credentials(timeoutMs),
        timeoutMs,
        maxBytes: maxResponseBytes,
        signal: this.#closing.signal,
      });
      return status < 500 ? undefined : `the OPA server is not ready (it answered ${status})`;
    } catch (error) {
      return messageOf(error);
    }
  }
}
