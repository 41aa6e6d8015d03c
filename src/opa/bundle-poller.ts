/** A bundle on a server, fetched until there is one and then asked for changes; the last good one stays in use. */
import { hash } from "node:crypto";
import { messageOf, ProxyError } from "../errors.ts";
import { maxArchiveBytes, readBundle, unpackBundle } from "./bundle.ts";
import type {
  Credentials,
  DecisionEngine,
  DecisionPath,
  Evaluation,
  PolicyObserver,
} from "./decision-engine.ts";
import type { OperatorFetch } from "../http/operator-fetch.ts";
import { WasmEngine } from "./wasm-engine.ts";
import { compilePolicy } from "./wasm-policy.ts";

/** Options of a poller. */
export interface BundlePollerOptions {
  /** The address of the bundle; an Error says what is still missing to know it. */
  location(): string;
  readonly credentials: Credentials;
  /** After a good response the next request is sent after a random time between these two. */
  readonly minDelayMs: number;
  readonly maxDelayMs: number;
  readonly timeoutMs: number;
  readonly observer: PolicyObserver;
}

const fetchTimeoutMs = 30_000;
/** After a bad response: the first wait, doubled up to the longer delay. */
const firstRetryMs = 500;

/**
 * One server's bundle, shared by every entry that names the same one.
 *
 * It outlives the generation that made it, so running generations attach and detach their fetch functions.
 */
export class BundlePoller implements DecisionEngine {
  readonly #options: BundlePollerOptions;
  readonly #engine: WasmEngine;
  readonly #calls = new Map<object, OperatorFetch>();
  readonly #closing = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #isPolling = false;
  #etag: string | undefined;
  #digest: string | undefined;
  #failures = 0;
  #problem: string | undefined;

  constructor(options: BundlePollerOptions) {
    this.#options = options;
    this.#engine = new WasmEngine(options.timeoutMs, options.observer);
  }

  /** Gives a way out until {@link detach}; the newest one is used, and the first one starts the polling. */
  attach(owner: object, call: OperatorFetch): void {
    this.#calls.set(owner, call);
    if (this.#isPolling || (this.#timer !== undefined && this.#engine.ready() === true)) return;
    clearTimeout(this.#timer);
    void this.#poll();
  }

  detach(owner: object): void {
    this.#calls.delete(owner);
  }

  evaluate(path: DecisionPath, input: string): Promise<Evaluation> {
    return this.#engine.evaluate(path, input);
  }

  ready(): true | string {
    return this.#engine.ready();
  }

  close(): void {
    this.#closing.abort();
    clearTimeout(this.#timer);
    this.#engine.close();
  }

  /** Never rejects: the outcome is in the fields, and the next round is arranged. */
  async #poll(): Promise<void> {
    this.#isPolling = true;
    this.#timer = undefined;
    try {
      await this.#fetch();
      this.#failures = 0;
      this.#problem = undefined;
    } catch (error) {
      this.#failures += 1;
      this.#fail(
        error instanceof ProxyError ? `${error.code}: ${error.message}` : messageOf(error),
      );
    }
    this.#isPolling = false;
    if (this.#closing.signal.aborted) return;
    this.#timer = setTimeout(() => void this.#poll(), this.#delayMs()).unref();
  }

  async #fetch(): Promise<void> {
    const call = [...this.#calls.values()].at(-1);
    // Between two generations nobody needs the bundle.
    if (call === undefined) return;
    const location = this.#options.location();
    const response = await call(location, {
      headers: {
        accept: "application/vnd.openpolicyagent.bundles, application/gzip, */*",
        ...(this.#etag === undefined ? {} : { "if-none-match": this.#etag }),
        ...this.#options.credentials(),
      },
      timeoutMs: fetchTimeoutMs,
      maxBytes: maxArchiveBytes,
      signal: this.#closing.signal,
    });
    if (response.status === 304 && this.#digest !== undefined) return;
    if (response.status !== 200) throw new Error(`the bundle server answered ${response.status}`);
    const digest = hash("sha256", response.body, "base64url");
    if (digest !== this.#digest) {
      const policy = compilePolicy(readBundle(unpackBundle(response.body)));
      await this.#engine.activate(policy, location);
      this.#digest = digest;
    }
    this.#etag = response.headers["etag"];
  }

  #fail(problem: string): void {
    if (problem === this.#problem || this.#closing.signal.aborted) return;
    this.#problem = problem;
    this.#engine.problem = `no bundle yet: ${problem}`;
    this.#options.observer.onProblem(problem);
  }

  #delayMs(): number {
    const { minDelayMs, maxDelayMs } = this.#options;
    if (this.#failures === 0) return minDelayMs + Math.random() * (maxDelayMs - minDelayMs);
    const limit = this.#engine.ready() === true ? maxDelayMs : minDelayMs;
    const wait = Math.min(firstRetryMs * 2 ** Math.min(this.#failures - 1, 16), limit);
    // Proxies that lost their server together must not come back together.
    return wait * (0.5 + Math.random() / 2);
  }
}
