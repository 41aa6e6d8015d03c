/** Faults on the way through a parent, in words that name the hop. */
import { type ErrorCode, messageOf, ProxyError } from "../errors.ts";
import type { ParentProxy } from "./parent-proxy.ts";

/** A step of the way at which a connection through a parent can fail; also values of a metric label. */
export const hops = ["dns", "tcp", "tls", "auth", "connect", "http"] as const;

/** One of {@link hops}. */
export type Hop = (typeof hops)[number];

interface HopFailure {
  readonly hop: Hop;
  readonly code: ErrorCode;
  /** Goes on after the parent's name. */
  readonly what: string;
  readonly cause?: unknown;
}

/** A fault of one hop. */
export function hopFault(parent: ParentProxy, { hop, code, what, cause }: HopFailure): ProxyError {
  return new ProxyError(code, `the upstream proxy ${parent.label} ${what}`, { cause, hop });
}

/** The same fault, said of the parent. A client that went away is nobody's fault. */
export function ofParent(parent: ParentProxy, hop: Hop, error: unknown): ProxyError {
  if (!(error instanceof ProxyError)) {
    const what = `failed: ${messageOf(error)}`;
    return hopFault(parent, { hop, code: "upstream.refused", what, cause: error });
  }
  if (error.code === "pipeline.cancelled") return error;
  const what = `cannot be used: ${error.message}`;
  return hopFault(parent, { hop, code: error.code, what, cause: error.cause });
}
