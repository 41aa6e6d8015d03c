/** The way out that this folder is given: one bounded HTTP call to a service that the operator named. */
import type { Secret } from "../secret.ts";

/** What a client shows of itself in a TLS handshake. */
export interface ClientCertificate {
  /** In PEM: the certificate first, then its intermediates. */
  readonly certificateChain: string;
  /** In PEM. */
  readonly privateKey: Secret;
}

/** A request of this folder: token endpoints, key sets and discovery documents need nothing more. */
export interface HttpCallRequest {
  readonly method?: "GET" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
  readonly maxBytes?: number;
  /** Shown where the service asks for one; the address has to be https. */
  readonly certificate?: ClientCertificate;
}

/** A whole response; redirects are never followed. */
export interface HttpCallResponse {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** Rejects with a ProxyError when there is no whole response within the limits. */
export type HttpCall = (url: string, request?: HttpCallRequest) => Promise<HttpCallResponse>;

/** Milliseconds since the epoch; set by tests. */
export interface Clock {
  now(): number;
}

/** A JSON object, or undefined for anything else. */
export function parseJsonObject(text: string): Record<string, unknown> | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  return value as Record<string, unknown>;
}
