/** The issuer's signing keys: fetched when first needed, refreshed behind the requests, kept through an outage. */
import { createLocalJWKSet, errors, type CryptoKey, type JWSHeaderParameters } from "jose";
import { messageOf, ProxyError } from "../errors.ts";
import { type Clock, passingClock } from "../duration.ts";
import type { OperatorFetch, OperatorResponse } from "../http/operator-fetch.ts";
import { parseJsonObject } from "../http/json-access.ts";
import { type KeyDocument, readKeyDocument } from "./jwks-document.ts";
import { RefetchAllowance, type SharedAllowance } from "./refetch-allowance.ts";

/** Where the keys are: a fixed address, or the issuer's discovery document that names it. */
export type KeyLocation =
  | { readonly kind: "keys"; readonly url: string }
  | { readonly kind: "discovery"; readonly url: string; readonly issuer: string };

/** Options of a {@link JwksSource}. */
export interface JwksSourceOptions {
  readonly location: KeyLocation;
  readonly clock: Clock;
  /** Age at which keys are fetched again behind a request. */
  readonly refreshMs?: number;
  /** Age at which keys are no longer used when the issuer does not respond. */
  readonly maxAgeMs?: number;
  /** Until a fetch that tokens asked for in vain is forgotten, and the same `kid` is looked for again. */
  readonly missCooldownMs?: number;
  /** Sources of the same keys in other threads; absent where there are none. */
  readonly others?: OtherSources | undefined;
}

/** What sources of the same keys have in common. */
export interface OtherSources {
  readonly misses: SharedAllowance;
  readonly mismatches: SharedAllowance;
  /** Calls `hear` with each document that another one has fetched. */
  listen(hear: (document: string) => void): void;
  /** Resolves when the others have it, or cannot have it. */
  say(document: string): Promise<void>;
  close(): void;
}

/**
 * How a source reaches its issuer.
 *
 * It comes with every question, because the source outlives the generation whose way out it was.
 */
export interface KeyFetcher {
  readonly call: OperatorFetch;
  /** Called after every fetch: with `undefined` for a good one, else with what was wrong. */
  onFetch?(problem: string | undefined): void;
}

/** There are no keys that may be used: the issuer never responded, or has not responded for too long. */
export class KeysUnavailable extends Error {
  constructor(problem: string) {
    super(problem);
    this.name = "KeysUnavailable";
  }
}

interface Loaded extends KeyDocument {
  readonly select: ReturnType<typeof createLocalJWKSet>;
  readonly at: number;
}

/** Ids of keys that are remembered as not there; beyond it the oldest is forgotten. */
const maxMissing = 100;
const longestKid = 256;
/** Keys that are tried for one token: each costs a check of a signature, and strangers send tokens. */
const maxCandidates = 16;
const maxDocumentBytes = 256 * 1024;
const fetchTimeoutMs = 10_000;
/** After a failed fetch: the first wait, doubled up to the last. */
const firstRetryMs = 250;
const lastRetryMs = 10_000;

/** One issuer's key set. At most one fetch is under way at any time. */
export class JwksSource {
  readonly #options: JwksSourceOptions;
  readonly #clock: Clock;
  readonly #refreshMs: number;
  readonly #maxAgeMs: number;
  readonly #missCooldownMs: number;
  #loaded: Loaded | undefined;
  #fetching: Promise<void> | undefined;
  #failures = 0;
  #problem = "not fetched yet";
  #retryAt = Number.NEGATIVE_INFINITY;
  /** For ids that are not there, and for keys that may have been replaced under their id. */
  readonly #misses: RefetchAllowance;
  readonly #mismatches: RefetchAllowance;
  /** Ids that a fetch did not bring, with the time until which they cause no other. */
  readonly #missing = new Map<string, number>();
  /** Which set a key came from. */
  readonly #origins = new WeakMap<CryptoKey, Loaded>();
  #withdrawals = 0;

  constructor(options: JwksSourceOptions) {
    this.#options = options;
    this.#refreshMs = options.refreshMs ?? 5 * 60_000;
    this.#maxAgeMs = options.maxAgeMs ?? 24 * 3_600_000;
    this.#missCooldownMs = options.missCooldownMs ?? 15_000;
    const { others } = options;
    const clock = passingClock(options.clock);
    this.#clock = clock;
    this.#misses = new RefetchAllowance(clock, this.#missCooldownMs, others?.misses);
    this.#mismatches = new RefetchAllowance(clock, this.#missCooldownMs, others?.mismatches);
    others?.listen((text) => {
      const document = readKeyDocument(Buffer.from(text));
      if (typeof document !== "string") this.#use(document);
    });
  }

  close(): void {
    this.#options.others?.close();
  }

  /** Grows whenever a key was withdrawn: results that were verified with it are no longer valid. */
  get withdrawals(): number {
    return this.#withdrawals;
  }

  /** Whether keys are at hand now. */
  get hasKeys(): boolean {
    return this.#usable() !== undefined;
  }

  /** Why there are none. */
  get problem(): string {
    return `the issuer's keys are not available: ${this.#problem}`;
  }

  /** Starts the first fetch, or a refresh that is due, without waiting for it. */
  warm(fetcher: KeyFetcher): void {
    const due = this.#loaded === undefined || this.#age(this.#loaded) >= this.#refreshMs;
    if (due && this.#mayFetch()) void this.#fetchOnce(fetcher);
  }

  /**
   * The keys that fit a token's protected header, {@link maxCandidates} at most: several can have one `kid` or none
   * (RFC 7517 section 4.5).
   *
   * Throws {@link KeysUnavailable} when there are none at all, and jose's own errors when no key fits.
   */
  async keysFor(header: JWSHeaderParameters, fetcher: KeyFetcher): Promise<CryptoKey[]> {
    this.warm(fetcher);
    if (this.#usable() === undefined) await this.#fetching;
    const first = this.#usable();
    if (first === undefined) throw new KeysUnavailable(this.problem);
    try {
      return await this.#fitting(first, header);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
      await this.#afterMiss(header.kid, fetcher);
      const second = this.#usable();
      if (second === undefined || second === first) throw error;
      return await this.#afterFetch(second, header);
    }
  }

  /**
   * The keys of a newer set after all that fitted failed: the issuer may have put a new key under an old `kid`. Empty
   * where there is no newer one.
   */
  async keysBeside(
    tried: readonly CryptoKey[],
    header: JWSHeaderParameters,
    fetcher: KeyFetcher,
  ): Promise<CryptoKey[]> {
    const [first] = tried;
    const before = first === undefined ? undefined : this.#origins.get(first);
    if (before === undefined) return [];
    const isSame = (): boolean => this.#loaded === undefined || isSameSet(before, this.#loaded);
    if (isSame()) {
      const mayAsk =
        this.#fetching !== undefined || (this.#mayFetch() && (await this.#mismatches.take()));
      if (!mayAsk) return [];
      await this.#fetchOnce(fetcher);
      if (isSame()) return [];
      this.#mismatches.giveBack();
    }
    const usable = this.#usable();
    if (usable === undefined) return [];
    try {
      return await this.#fitting(usable, header);
    } catch (error) {
      if (error instanceof errors.JWKSNoMatchingKey) return [];
      throw error;
    }
  }

  /**
   * The issuer may have rotated. Whoever floods unknown ids gets a few fetches, and one more per cool-down; an id that a
   * fetch did not bring, such as that of a client that keeps an old token, causes no other meanwhile.
   */
  async #afterMiss(kid: string | undefined, fetcher: KeyFetcher): Promise<void> {
    if (this.#fetching !== undefined) return this.#fetching;
    const now = this.#clock.now();
    const until = this.#missing.get(kid ?? "");
    if (until !== undefined && now < until) return;
    if (!this.#mayFetch() || !(await this.#misses.take())) return;
    await this.#fetchOnce(fetcher);
  }

  /** Looks into a set that was fetched for a token, and notes whether that was worth it. */
  async #afterFetch(loaded: Loaded, header: JWSHeaderParameters): Promise<CryptoKey[]> {
    try {
      const keys = await this.#fitting(loaded, header);
      this.#misses.giveBack();
      return keys;
    } catch (error) {
      this.#noteMissing(header.kid ?? "");
      throw error;
    }
  }

  #noteMissing(kid: string, forMs = this.#missCooldownMs): void {
    if (kid.length > longestKid) return;
    const [oldest] = this.#missing.keys();
    if (oldest !== undefined && this.#missing.size >= maxMissing) this.#missing.delete(oldest);
    this.#missing.set(kid, this.#clock.now() + forMs);
  }

  async #fitting(loaded: Loaded, header: JWSHeaderParameters): Promise<CryptoKey[]> {
    const keys = await fittingKeys(loaded, header);
    for (const key of keys) this.#origins.set(key, loaded);
    return keys;
  }

  #usable(): Loaded | undefined {
    if (this.#loaded === undefined || this.#age(this.#loaded) < this.#maxAgeMs) return this.#loaded;
    return undefined;
  }

  #age(loaded: Loaded): number {
    return this.#clock.now() - loaded.at;
  }

  #mayFetch(): boolean {
    return this.#fetching === undefined && this.#clock.now() >= this.#retryAt;
  }

  /** Never rejects: the outcome is in the fields. */
  #fetchOnce(fetcher: KeyFetcher): Promise<void> {
    this.#fetching ??= this.#fetch(fetcher.call).then((problem) => {
      this.#fetching = undefined;
      fetcher.onFetch?.(problem);
    });
    return this.#fetching;
  }

  async #fetch(call: OperatorFetch): Promise<string | undefined> {
    const document = await this.#load(call);
    if (typeof document === "string") {
      const now = this.#clock.now();
      const wait = Math.min(firstRetryMs * 2 ** this.#failures, lastRetryMs);
      this.#failures = Math.min(this.#failures + 1, 16);
      this.#retryAt = now + wait;
      this.#problem = document;
      return document;
    }
    this.#use(document);
    await this.#options.others?.say(JSON.stringify({ keys: document.keys }));
    return undefined;
  }

  #use(document: KeyDocument): void {
    this.#noteWithdrawn(document);
    const at = this.#clock.now();
    this.#loaded = { ...document, select: createLocalJWKSet({ keys: document.keys }), at };
    this.#failures = 0;
    this.#retryAt = Number.NEGATIVE_INFINITY;
  }

  /** Tokens of a withdrawn key still come, and need no fetch to be refused. */
  #noteWithdrawn({ prints, keys }: KeyDocument): void {
    if (this.#loaded === undefined) return;
    if ([...this.#loaded.prints].some((print) => !prints.has(print))) this.#withdrawals += 1;
    const ids = new Set(keys.map(({ kid = "" }) => kid));
    for (const { kid = "" } of this.#loaded.keys)
      if (!ids.has(kid)) this.#noteMissing(kid, this.#refreshMs);
  }

  async #load(call: OperatorFetch): Promise<KeyDocument | string> {
    const { location } = this.#options;
    try {
      const url = location.kind === "keys" ? location.url : await this.#discover(location, call);
      const response = await this.#get(url, call);
      return typeof response === "string" ? response : readKeyDocument(response.body);
    } catch (error) {
      if (error instanceof ProxyError) return `${error.code}: ${error.message}`;
      return messageOf(error);
    }
  }

  /** OpenID Connect Discovery section 4.3: the document must name exactly the issuer that was asked for. */
  async #discover(
    location: Extract<KeyLocation, { kind: "discovery" }>,
    call: OperatorFetch,
  ): Promise<string> {
    const response = await this.#get(location.url, call);
    if (typeof response === "string") throw new Error(`discovery: ${response}`);
    const document = parseJsonObject(response.body.toString("utf8"));
    if (document?.["issuer"] !== location.issuer) {
      throw new Error("the discovery document names another issuer");
    }
    const url = document["jwks_uri"];
    if (typeof url !== "string" || !/^https?:\/\//.test(url) || !URL.canParse(url)) {
      throw new Error("the discovery document has no jwks_uri");
    }
    if (new URL(url).origin !== new URL(location.url).origin) {
      throw new Error("the jwks_uri of the discovery document is on another origin: set jwks_url");
    }
    return url;
  }

  async #get(url: string, call: OperatorFetch): Promise<OperatorResponse | string> {
    const response = await call(url, {
      headers: { accept: "application/json" },
      timeoutMs: fetchTimeoutMs,
      maxBytes: maxDocumentBytes,
    });
    return response.status === 200 ? response : `answered ${response.status}`;
  }
}

async function fittingKeys({ select }: Loaded, header: JWSHeaderParameters): Promise<CryptoKey[]> {
  try {
    return [await select(header)];
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error;
    const keys: CryptoKey[] = [];
    for await (const key of error) {
      keys.push(key);
      if (keys.length === maxCandidates) break;
    }
    if (keys.length === 0) throw new errors.JWKSNoMatchingKey();
    return keys;
  }
}

function isSameSet({ prints: one }: KeyDocument, { prints: other }: KeyDocument): boolean {
  return one.size === other.size && [...one].every((print) => other.has(print));
}
