/**
 * The one error class of the proxy and the one table that says what each code means on the wire.
 *
 * A refusal is a returned Decision; a fault is a thrown ProxyError. Nothing else is thrown on purpose.
 */

/** What one code means to a client: its HTTP status, and whether the message may leave the process. */
interface ErrorKind {
  readonly status: number;
  readonly exposed: boolean;
}

/** Codes of the Go program keep their spelling: clients match on them. */
export const errorTable = {
  "request.malformed": { status: 400, exposed: true },
  "request.misdirected": { status: 421, exposed: true },
  "request.method-not-allowed": { status: 405, exposed: true },
  "request.body-too-large": { status: 413, exposed: true },
  "request.unsupported-content": { status: 415, exposed: true },
  "request.expectation-failed": { status: 417, exposed: true },
  "request.headers-too-large": { status: 431, exposed: true },
  "request.timeout": { status: 408, exposed: true },
  "request.loop": { status: 508, exposed: true },
  "auth.missing-token": { status: 401, exposed: true },
  "auth.invalid-token": { status: 401, exposed: true },
  "auth.audience-mismatch": { status: 401, exposed: true },
  "auth.unauthorized": { status: 401, exposed: true },
  "auth.caller-unknown": { status: 407, exposed: true },
  "policy.forbidden": { status: 403, exposed: true },
  "policy.content-blocked": { status: 403, exposed: true },
  "policy.approval-denied": { status: 403, exposed: true },
  "policy.approval-pending": { status: 403, exposed: true },
  "policy.killed": { status: 403, exposed: true },
  "policy.rate-limited": { status: 429, exposed: true },
  "upstream.address-forbidden": { status: 403, exposed: true },
  "upstream.unresolvable": { status: 502, exposed: true },
  "upstream.refused": { status: 502, exposed: true },
  "upstream.proxy-refused": { status: 502, exposed: true },
  "upstream.reset": { status: 502, exposed: true },
  "upstream.tls": { status: 502, exposed: true },
  "upstream.bad-response": { status: 502, exposed: true },
  "upstream.response-too-large": { status: 502, exposed: true },
  "upstream.timeout": { status: 504, exposed: true },
  "upstream.unreachable": { status: 503, exposed: true },
  "upstream.token-exchange-failed": { status: 503, exposed: true },
  "secret.unavailable": { status: 503, exposed: true },
  "tls.client-rejected": { status: 502, exposed: true },
  "tls.not-tls": { status: 400, exposed: true },
  "budget.exceeded": { status: 429, exposed: true },
  "state.unavailable": { status: 503, exposed: true },
  "proxy.overloaded": { status: 503, exposed: true },
  "pipeline.cancelled": { status: 499, exposed: true },
  "plugin.fault": { status: 500, exposed: false },
  "config.invalid": { status: 500, exposed: false },
  "listener.unavailable": { status: 500, exposed: false },
  "internal.fault": { status: 500, exposed: false },
} as const satisfies Record<string, ErrorKind>;

/** One of the codes of {@link errorTable}. */
export type ErrorCode = keyof typeof errorTable;

/** What a fault carries besides its code and message. */
interface ProxyErrorOptions {
  readonly cause?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly hop?: string;
}

/**
 * A fault with a code of the table.
 *
 * `message` is fit for a client when the code is exposed: it names hosts, rules and keys, never secrets.
 */
export class ProxyError extends Error {
  readonly code: ErrorCode;
  /** Fields of the response, such as a challenge. */
  readonly headers: Readonly<Record<string, string>> | undefined;
  /** The step of the way through a parent proxy that failed, where one did; see upstream/hop-fault.ts. */
  readonly hop: string | undefined;

  constructor(code: ErrorCode, message: string, options: ProxyErrorOptions = {}) {
    super(message, options);
    this.name = "ProxyError";
    this.code = code;
    this.headers = options.headers;
    this.hop = options.hop;
  }

  /** The HTTP status of responses with this code. */
  get status(): number {
    return errorTable[this.code].status;
  }
}

/** HTTP status of a denial code: the table first, 500 for a code that nobody declared. */
export function statusOfCode(code: string): number {
  return isErrorCode(code) ? errorTable[code].status : 500;
}

/** Whether the table has this code. */
export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code);
}

/** The text of an unknown thrown value, for logs. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** An unknown thrown value as an Error. */
export function asError(error: unknown): Error {
  return error instanceof Error ? error : new ProxyError("internal.fault", String(error));
}
