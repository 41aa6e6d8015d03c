/** Faults on the way through a parent, in words that name the hop. */
import { type ErrorCode, messageOf, ProxyError } from "../errors.ts";
import type { ParentProxy } from "./parent-proxy.ts";

/** A step of the way at which a connection through a parent can fail; also values of a metric label. */
export const hops = ["dns", "tcp", "tls", "auth", "connect", "http"] as const;

/** One of {@link hops}. */
export type Hop = (typeof hops)[number];

/** A fault of one hop; `what` goes on after the parent's name. */
export function hopFault(
  parent: ParentProxy,
  hop: Hop,
  code: ErrorCode,
  what: string,
  cause?: unknown,
): ProxyError {
  return new ProxyError(code, `the upstream proxy ${parent.label} ${what}`, { cause, hop });
}

/** The same fault, said of the parent. A client that went away is nobody's fault. */
export function ofParent(parent: ParentProxy, hop: Hop, error: unknown): ProxyError {
  if (!(error instanceof ProxyError)) {
    return hopFault(parent, hop, "upstream.refused", `failed: ${messageOf(error)}`, error);
  }
  if (error.code === "pipeline.cancelled") return error;
  return hopFault(parent, hop, error.code, `cannot be used: ${error.message}`, error.cause);
}
