/** Issued tokens by digest of all that they depend on, with one call at a time for each of them. */
import { hash } from "node:crypto";
import { Secret } from "../secret.ts";
import { type Clock, passingClock } from "../duration.ts";
import type { TokenOwner } from "./logout-token.ts";
import { SharedCalls } from "./shared-calls.ts";
import type {
  IssuedToken,
  RejectedGrant,
  TokenResponse,
  UnavailableEndpoint,
} from "./token-response.ts";

/** A token that may be used now. */
export interface CachedToken {
  readonly token: Secret;
  /** Milliseconds since the epoch at which this cache forgets it. */
  readonly usableUntil: number;
  /** The same where the clock is set back meanwhile, by {@link passingClock}. */
  readonly passesAt: number;
  /** The subject of the token, as the caller recorded it. */
  readonly subject?: string | undefined;
  readonly exchangedFor?: SubjectToken | undefined;
}

/** The token that another one was exchanged for. */
export interface SubjectToken extends TokenOwner {
  /** Of the text of the token. */
  readonly digest: string;
}

/** What the cache gave: a token and where it came from, or why there is none. */
export type Obtained =
  | {
      readonly kind: "token";
      readonly token: Secret;
      readonly subject?: string | undefined;
      readonly source: "cache" | "endpoint";
    }
  | {
      readonly kind: "refused";
      readonly refused: RejectedGrant | UnavailableEndpoint;
      readonly source: "cache" | "endpoint";
    };

/** What a caller says about the token that it asks for. */
export interface TokenRequest {
  readonly key: string;
  /** Seconds since the epoch at which the subject token ends: the issued token is not kept longer. */
  readonly subjectExpiresAt?: number | undefined;
  readonly subject?: string | undefined;
  /** The token that is exchanged; absent where the client asks for itself. */
  readonly exchangedFor?: SubjectToken | undefined;
  /** The client's own credential, compared by identity: another one ends what was refused to this one. */
  readonly proof?: object | undefined;
  /** Asks the endpoint. The signal aborts when every caller that waits for this key has disconnected. */
  load(signal: AbortSignal): Promise<TokenResponse>;
}

/** What other threads have: a text by key, made by one of them at a time. */
export interface OtherTokens {
  /** The text of another thread; undefined where `make` was called. */
  othersOr(
    key: string,
    limitMs: number,
    make: () => Promise<{ readonly text: string; readonly keepMs: number } | undefined>,
  ): Promise<string | undefined>;
  forget(key: string): Promise<void>;
}

/** Bounds of a {@link TokenCache}; tests make them small. */
export interface TokenCacheOptions {
  readonly clock: Clock;
  /** Absent where this is the only cache of the process. */
  readonly others?: OtherTokens | undefined;
  readonly maxEntries?: number;
  readonly maxRejections?: number;
}

/** Taken off every lifetime, so that a token does not end on its way. */
const skewMs = 30_000;
/** How long a refusal of the endpoint is repeated without asking again. */
const rejectionMs = 5_000;
/** When the cache is full, it falls to this share of its size. */
const keptShare = 0.75;

/** Longest that the call of another thread is waited for. */
const otherCallMs = 30_000;

interface Loaded {
  readonly response: TokenResponse;
  /** Milliseconds since the epoch at which the refusal of another thread ends. */
  readonly until?: number | undefined;
  /** Another thread had it. */
  readonly isKept: boolean;
}

/** A refusal as threads tell each other of it. */
interface ToldRejection {
  readonly refused: RejectedGrant;
  readonly until: number;
}

const cancelled: Loaded = {
  response: { kind: "unavailable", reason: "cancelled" },
  isKept: false,
};

interface Rejection {
  readonly refused: RejectedGrant;
  readonly until: number;
  readonly proof: object | undefined;
}

/** The cache key of a token: a digest over every part with its length, so that no two lists of parts meet. */
export function tokenCacheKey(parts: readonly (string | undefined)[]): string {
  let text = "";
  for (const part of parts) text += part === undefined ? "-;" : `${part.length}:${part};`;
  return hash("sha256", text, "base64");
}

/** Remembers issued tokens until 30 s before their end, and refusals for a few seconds. */
export class TokenCache {
  readonly #clock: Clock;
  readonly #passing: Clock;
  readonly #maxEntries: number;
  readonly #maxRejections: number;
  readonly #tokens = new Map<string, CachedToken>();
  readonly #rejections = new Map<string, Rejection>();
  readonly #calls = new SharedCalls<Loaded>(cancelled);
  readonly #others: OtherTokens | undefined;
  #epoch = 0;

  constructor(options: TokenCacheOptions) {
    this.#clock = options.clock;
    this.#passing = passingClock(options.clock);
    this.#others = options.others;
    this.#maxEntries = options.maxEntries ?? 10_000;
    this.#maxRejections = options.maxRejections ?? 1_000;
  }

  get size(): number {
    return this.#tokens.size;
  }

  /** The token under this key, if it can be used now. */
  get(key: string): CachedToken | undefined {
    const entry = this.#tokens.get(key);
    if (entry === undefined) return undefined;
    if (this.#isUsable(entry)) return entry;
    this.#tokens.delete(key);
    return undefined;
  }

  /**
   * The token under this key, or what one call of the endpoint gives.
   *
   * Callers with the same key share the call that is under way. A caller that disconnects does not end it for the
   * others, and a failure is returned to those who waited for it and to nobody who comes later.
   */
  async obtain(request: TokenRequest, signal: AbortSignal): Promise<Obtained> {
    const entry = this.get(request.key);
    if (entry !== undefined) return { kind: "token", ...entry, source: "cache" };
    const rejection = this.#rejections.get(request.key);
    const isOutdated = rejection !== undefined && rejection.proof !== request.proof;
    if (rejection !== undefined) {
      if (rejection.until > this.#passing.now() && !isOutdated) {
        return { kind: "refused", refused: rejection.refused, source: "cache" };
      }
      this.#rejections.delete(request.key);
    }
    const { response, isKept } = await this.#calls.join(request.key, signal, (ending) =>
      this.#load(request, ending, isOutdated),
    );
    const source = isKept ? "cache" : "endpoint";
    if (response.kind !== "issued") return { kind: "refused", refused: response, source };
    return { kind: "token", token: response.token, subject: request.subject, source };
  }

  /** Forgets tokens that were exchanged for what the predicate names, and keeps none that is being asked for. */
  forget(isMeant: (exchanged: SubjectToken) => boolean): number {
    this.#epoch += 1;
    const meant = [...this.#tokens].filter(
      ([, { exchangedFor }]) => exchangedFor !== undefined && isMeant(exchangedFor),
    );
    for (const [key] of meant) {
      this.#tokens.delete(key);
      void this.#others?.forget(key);
    }
    return meant.length;
  }

  /** Tokens that are asked for while logins end are used, and not kept. */
  async #load(request: TokenRequest, signal: AbortSignal, isOutdated: boolean): Promise<Loaded> {
    // What another credential was refused, other threads may repeat.
    if (isOutdated) await this.#others?.forget(request.key);
    const epoch = this.#epoch;
    const loaded = await this.#ask(request, signal);
    if (epoch === this.#epoch) this.#keep(request, loaded);
    else void this.#others?.forget(request.key);
    return loaded;
  }

  async #ask(request: TokenRequest, signal: AbortSignal): Promise<Loaded> {
    if (this.#others === undefined) return { response: await request.load(signal), isKept: false };
    let own: TokenResponse | undefined;
    const text = await this.#others.othersOr(request.key, otherCallMs, async () => {
      own = await request.load(signal);
      const now = this.#clock.now();
      if (own.kind === "rejected")
        return { text: textOfRejection(own, now + rejectionMs), keepMs: rejectionMs };
      if (own.kind !== "issued") return undefined;
      const keepMs = usableUntil(request, own) - now;
      return keepMs > 0 ? { text: textOf(own), keepMs } : undefined;
    });
    if (own !== undefined) return { response: own, isKept: false };
    if (text === undefined) return { response: await request.load(signal), isKept: false };
    return loadedOf(text);
  }

  #keep(request: TokenRequest, { response, until }: Loaded): void {
    const now = this.#passing.now();
    if (response.kind === "rejected") {
      makeRoom(this.#rejections, this.#maxRejections, (rejection) => rejection.until <= now);
      const leftMs = until === undefined ? rejectionMs : until - this.#clock.now();
      const { proof } = request;
      const ending = now + Math.min(leftMs, rejectionMs);
      this.#rejections.set(request.key, { refused: response, until: ending, proof });
      return;
    }
    if (response.kind === "unavailable") return;
    const { subject, exchangedFor } = request;
    const usable = usableUntil(request, response);
    const keepMs = usable - this.#clock.now();
    if (keepMs <= 0) return;
    makeRoom(this.#tokens, this.#maxEntries, (entry) => !this.#isUsable(entry));
    const { token } = response;
    const entry = { token, usableUntil: usable, passesAt: now + keepMs, subject, exchangedFor };
    this.#tokens.set(request.key, entry);
  }

  #isUsable({ usableUntil, passesAt }: CachedToken): boolean {
    return usableUntil > this.#clock.now() && passesAt > this.#passing.now();
  }
}

function usableUntil(
  { subjectExpiresAt = Number.POSITIVE_INFINITY }: TokenRequest,
  { expiresAt = Number.NEGATIVE_INFINITY }: IssuedToken,
): number {
  return Math.min(expiresAt - skewMs, subjectExpiresAt * 1000);
}

/** For the memory of the process, and for no log. */
function textOf({ token, expiresAt, scope }: IssuedToken): string {
  return JSON.stringify({ token: token.reveal(), expiresAt, scope });
}

function textOfRejection(refused: RejectedGrant, until: number): string {
  return JSON.stringify({ refused, until } satisfies ToldRejection);
}

function loadedOf(text: string): Loaded {
  // It was written above.
  const told = JSON.parse(text) as
    ToldRejection | (Omit<IssuedToken, "token"> & { readonly token: string });
  if ("refused" in told) return { response: told.refused, until: told.until, isKept: true };
  const { token, ...rest } = told;
  return { response: { ...rest, kind: "issued", token: new Secret(token) }, isKept: true };
}

/** Makes a full map smaller: first what has ended, then the oldest down to three quarters. */
function makeRoom<T>(map: Map<string, T>, max: number, hasEnded: (entry: T) => boolean): void {
  if (map.size < max) return;
  for (const [key, entry] of map) if (hasEnded(entry)) map.delete(key);
  const kept = Math.floor(max * keptShare);
  for (const key of map.keys()) {
    if (map.size <= kept) break;
    map.delete(key);
  }
}
