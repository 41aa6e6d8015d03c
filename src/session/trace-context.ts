/** The `traceparent` field (W3C Trace Context, section 3.2): read, and made where a conversation has none. */
import { randomBytes } from "node:crypto";

const pattern = /^([\da-f]{2})-([\da-f]{32})-([\da-f]{16})-[\da-f]{2}(?:-.*)?$/;

/** The trace id of a valid field; undefined for anything else, which section 4.3 says to ignore. */
export function traceIdOf(traceparent: string | undefined): string | undefined {
  const [, version, traceId, parentId] = pattern.exec(traceparent?.trim() ?? "") ?? [];
  if (version === undefined || version === "ff") return undefined;
  if (/^0+$/.test(traceId ?? "") || /^0+$/.test(parentId ?? "")) return undefined;
  return traceId;
}

/**
 * A field that starts a trace. It is marked as sampled, as a trace that the receiver would start by itself is by default:
 * a receiver that honours its parent would otherwise stop recording.
 */
export function startTrace(): { readonly traceId: string; readonly traceparent: string } {
  const traceId = randomBytes(16).toString("hex");
  return { traceId, traceparent: `00-${traceId}-${randomBytes(8).toString("hex")}-01` };
}
