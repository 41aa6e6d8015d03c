/** The way out that this folder is given: one bounded HTTP call to a service that the operator named. */

/** What bundles and decisions are asked with. */
export interface OpaCallRequest {
  readonly method?: "GET" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
  readonly maxBytes?: number;
}

/** A whole response; redirects are never followed. */
export interface OpaCallResponse {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** Rejects with a ProxyError when there is no whole answer within the limits. */
export type OpaCall = (url: string, request?: OpaCallRequest) => Promise<OpaCallResponse>;

/** The field that shows who asks; empty without a token. */
export type Credentials = () => Readonly<Record<string, string>>;
