/** A bundle on a server, fetched until there is one and then asked for changes; the last good one stays in use. */
import { hash } from "node:crypto";
import { messageOf, ProxyError } from "../errors.ts";
import { maxArchiveBytes, unpackBundle } from "./bundle.ts";
import type {
  Credentials,
  DecisionEngine,
  DecisionPath,
  Evaluation,
  PolicyObserver,
} from "./decision-engine.ts";
import type { OperatorFetch, OperatorResponse } from "../http/operator-fetch.ts";
import { type BundleRules, preparePolicy } from "./policy-source.ts";
import { WasmEngine } from "./wasm-engine.ts";

/** Options of a poller. */
export interface BundlePollerOptions {
  /** The address of the bundle; an Error says what is still missing to know it. */
  location(): string;
  readonly credentials: Credentials;
  readonly rules: BundleRules;
  /** After a good response the next request is sent after a random time between these two. */
  readonly minDelayMs: number;
  readonly maxDelayMs: number;
  readonly timeoutMs: number;
  readonly observer: PolicyObserver;
}

const fetchTimeoutMs = 30_000;
const maxRedirects = 5;
const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
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
    const response = await this.#get(call, location);
    if (response.status === 304 && this.#digest !== undefined) return;
    if (response.status !== 200) throw new Error(`the bundle server answered ${response.status}`);
    const digest = hash("sha256", response.body, "base64url");
    if (digest !== this.#digest) {
      const policy = await preparePolicy(
        unpackBundle(response.body),
        this.#options.rules,
        this.#closing.signal,
      );
      await this.#engine.activate(policy, location);
      this.#digest = digest;
    }
    this.#etag = response.headers["etag"];
  }

  /** Follows redirects; which origins may be asked is up to `call`. */
  async #get(call: OperatorFetch, location: string): Promise<OperatorResponse> {
    let url = location;
    for (let hops = 0; hops <= maxRedirects; hops += 1) {
      // The token is for the server that the file names.
      const credentials = sameOrigin(url, location)
        ? await this.#options.credentials(this.#closing.signal)
        : {};
      const response = await call(url, {
        headers: {
          accept: "application/vnd.openpolicyagent.bundles, application/gzip, */*",
          ...(this.#etag === undefined ? {} : { "if-none-match": this.#etag }),
          ...credentials,
        },
        timeoutMs: fetchTimeoutMs,
        maxBytes: maxArchiveBytes,
        signal: this.#closing.signal,
      });
      if (!redirects.has(response.status)) return response;
      const target = response.headers["location"];
      if (target === undefined || !URL.canParse(target, url)) {
        throw new Error(`the bundle server answered ${response.status} without a usable Location`);
      }
      url = new URL(target, url).href;
    }
    throw new Error(`the bundle server redirects more than ${maxRedirects} times`);
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

function sameOrigin(url: string, other: string): boolean {
  return new URL(url).origin === new URL(other).origin;
}
