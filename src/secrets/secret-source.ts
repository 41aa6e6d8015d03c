/**
 * The contract of everything that gives secrets: a value that is renewed before it ends, without a restart.
 *
 * A source is made once for each configuration of it and outlives reloads. A fetcher knows one provider and keeps no
 * timer; {@link RefreshingSecret} makes a source of it.
 */
import type { Secret } from "../secret.ts";
import { ProxyError } from "../errors.ts";

/** A value as of now. */
export interface Held<T = Secret> {
  readonly value: T;
  /** Milliseconds since the epoch; it is not handed out any longer then. Absent: until another one replaces it. */
  readonly expiresAt?: number;
}

/** What a provider gave. */
export interface Fetched<T = Secret> extends Held<T> {
  /** Milliseconds since the epoch: when the provider is asked again, though the value may still be good. */
  readonly refreshAt?: number;
}

/** One secret. */
export interface SecretSource<T = Secret> {
  /** Where the file names it, and its kind: for logs, refusals and metrics. No part of it is secret. */
  readonly name: string;
  /**
   * The value: at once where there is one, else what one fetch gives that all who ask meanwhile wait for.
   *
   * Rejects with ProxyError `secret.unavailable`, which names the source, when its limit is over, the signal aborts, or
   * the provider has no value to give; the `cause` says why, for operators only.
   */
  current(signal?: AbortSignal): Held<T> | Promise<Held<T>>;
  /**
   * Whether there is another value now than this one, which was refused by whoever was shown it; the provider is asked for
   * one, but not at every call.
   */
  another(refused: T): boolean | Promise<boolean>;
  /** Why there has never been a value, in words for an operator; undefined when there has been one. */
  notReady(): string | undefined;
  /** Begins to fetch, and to renew from then on. More than one call changes nothing. */
  begin(): void;
  /** Ends what is under way, and every timer. */
  close(): void;
}

/** One provider, and what is asked of it. */
export interface SecretFetcher<T, Means> {
  /**
   * Asks once. `means` are of the generation that is running: the way out to services, and who this program is.
   *
   * Rejects with ProxyError `secret.unavailable` ({@link unavailable}); its message holds nothing secret. What it began
   * ends when the signal aborts.
   */
  fetch(means: Means, signal: AbortSignal): Promise<Fetched<T>>;
  /** Ends what no longer has a signal. */
  close?(): void;
}

/** Who is told how the fetches of a source went. */
export interface SecretWatch {
  fetched(name: string, held: Held<unknown>): void;
  failed(name: string, problem: string): void;
  /** Nothing uses the source any more. */
  closed(name: string): void;
}

/** The fault of a source that has no value; `problem` is this program's own words, or made harmless. */
export function unavailable(problem: string, cause?: unknown): ProxyError {
  return new ProxyError("secret.unavailable", problem, { cause });
}
